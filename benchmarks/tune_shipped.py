"""The records that ship, made and weighed: ResNet-18 tuned at several bits, and what that gains.

    python -m benchmarks.tune_shipped --target x86-64-v3              into schedules/records; goes on where it was
    python -m benchmarks.tune_shipped --target x86-64-v3 --bits w1a1  one of the networks: 3 minutes on a quiet machine
    python -m benchmarks.tune_shipped --target x86-64-v3 --gain       times each with the records and without
    python -m benchmarks.tune_shipped --same-code                     lets all of them name the sources of today

A run of all networks drops records of older kernels at its end; the kernels must not change between two runs. Where
sources have changed and what they compile to has not (python -m benchmarks.bundle_bytes tells), the records' trials
still hold: --same-code says so in them.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from msgspec.structs import replace

import mpcompile as mp
from benchmarks.networks import Bits, calibration_image, resnet18
from mpcompile.cli import console
from mpcompile.latency.fingerprint import measured_code
from mpcompile.latency.measure import measure
from mpcompile.records.store import NONE, family_of, read_records, write_records
from mpcompile.targets import load_target

BITS = ("w1a1", "w1a2", "w2a2", "w8a8")
RECORDS = Path(__file__).resolve().parents[1] / "schedules" / "records"
TRIALS = 32


def saved(bits: str, folder: Path) -> Path:
    w, a = bits.removeprefix("w").split("a")
    path = folder / f"resnet18_{bits}.onnx"
    resnet18(Bits(int(w), int(a))).save(path)
    return path


def tuned(target: str, bits: str, records: Path, trials: int, threads: int) -> None:
    with tempfile.TemporaryDirectory() as folder, console.progress(f"{target} {bits}") as update:
        found = mp.tune(saved(bits, Path(folder)), target, records, trials=trials, threads=threads, progress=update)
    before = sum(r.default_seconds * len(names) for names, r in found.records)
    after = sum(r.seconds * len(names) for names, r in found.records)
    failed = sum(map(len, found.failures.values()))
    console.say(
        f"{target} {bits}: {found.new} trials now, {found.known} before, {failed} failed; layers alone "
        f"{console.seconds(before)} → {console.seconds(after)} ({before / after:.3f}×)"
    )


def prune(target: str, records: Path) -> None:
    """Drops the records of other kernels than the newest's."""
    family = family_of(load_target(target))
    path = records / f"{family}.json"
    every = read_records(path, family)
    current = [r for r in every if r.kernels == measured_code()]
    write_records(path, family, current)
    console.say(f"{path}: {len(current)} records, {len(every) - len(current)} of older kernels dropped")


def same_code(records: Path) -> None:
    """Lets every record name today's kernels."""
    for path in sorted(records.glob("*.json")):
        every = read_records(path, path.stem)
        older = sum(r.kernels != measured_code() for r in every)
        write_records(path, path.stem, [replace(r, kernels=measured_code()) for r in every])
        console.say(f"{path}: {older} of {len(every)} records named other kernels than {measured_code()}")


def gain(target: str, bits: str, records: Path, rounds: int, threads: int) -> tuple[str, ...]:
    """(bits, time without records, with, ratio), timed in turn."""
    image = calibration_image(224)
    with tempfile.TemporaryDirectory() as folder:
        model = saved(bits, Path(folder))
        bundles = {}
        for name, chosen in (("default", NONE), ("tuned", records)):
            path = mp.compile(model, target, f"{folder}/{name}.mpc", records=chosen)
            bundles[name] = mp.open_bundle(path, threads=threads)
        timers = {name: bundle.timer(image) for name, bundle in bundles.items()}
        found = measure(timers, rounds=rounds)
        for bundle in bundles.values():
            bundle.close()
    return (
        bits,
        console.seconds(found["default"].seconds),
        console.seconds(found["tuned"].seconds),
        f"{found.ratio('default', 'tuned'):.3f}×",
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tune_shipped")
    parser.add_argument("--target", help="required, but for --same-code")
    parser.add_argument("--bits", choices=BITS, action="append", help="default: all")
    parser.add_argument("--trials", type=int, default=TRIALS, help="of each layer (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=21, help="of --gain (default: %(default)s)")
    parser.add_argument("--gain", action="store_true")
    parser.add_argument("--same-code", action="store_true", help="after a change of sources that changes no code")
    parser.add_argument("-o", "--output", type=Path, default=RECORDS, metavar="DIR")
    args = parser.parse_args()
    if args.same_code:
        same_code(args.output)
        return
    if not args.target:
        parser.error("--target is required")
    wanted = args.bits or BITS
    if args.gain:
        rows = [gain(args.target, bits, args.output, args.rounds, args.threads) for bits in wanted]
        console.table(
            ("network", ">default", ">tuned", ">gain"),
            rows,
            f"ResNet-18, {args.target}, {args.threads} thread{'s' * (args.threads > 1)}, from end to end",
        )
        return
    for bits in wanted:
        tuned(args.target, bits, args.output, args.trials, args.threads)
    if not args.bits:
        prune(args.target, args.output)


if __name__ == "__main__":
    main()
