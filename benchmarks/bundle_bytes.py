"""python -m benchmarks.bundle_bytes -o FILE.json: what every bundle of a set consists of, as hashes.

    python -m benchmarks.bundle_bytes -o before.json            # in the tree as it was
    python -m benchmarks.bundle_bytes --against before.json     # in the tree as it is: exit 1 where any byte differs

The set: the models of tests/data for each of `SMALL` targets, and benchmarks.networks for those of `LARGE`. A
refactoring that means to change no code leaves all of them as they were. Only the public API is used, so the file can be
copied into an older tree. `--quick`: the models of tests/data alone.

What is compared: of the library all that is loaded into memory (not what debuggers read, which has the line numbers of our
sources), the weights, and of the manifest everything but the versions and the description of the target, each as one hash.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import struct
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import mpcompile as mp

DATA = Path(__file__).resolve().parents[1] / "tests" / "data"
SMALL = ("x86-64", "icelake-server", "aarch64-dotprod", "rpi4b", "rpi3b-32")
SHF_ALLOC, SHT_NOBITS = 2, 8
LARGE = {
    "x86-64-v4-vnni-vpopcntdq": ((1, 1), (1, 2), (2, 2), (4, 4), (8, 8)),
    "x86-64-v3": ((1, 2), (2, 2), (8, 8)),
    "rpi4b": ((1, 2),),
}
"""Target → the bits of the networks that are compiled for it."""


def cases(quick: bool) -> Iterator[tuple[str, Path, str]]:
    """(name, model file, target); a generated model is there until the next one is asked for."""
    for path in sorted(DATA.glob("*.onnx")):
        for target in SMALL:
            yield f"{path.stem} for {target}", path, target
    if quick:
        return
    from benchmarks.networks import NETWORKS, Bits

    with tempfile.TemporaryDirectory() as folder:
        for name, make in NETWORKS.items():
            for bits in sorted({pair for pairs in LARGE.values() for pair in pairs}):
                if name.startswith("mobilenet") and bits == (1, 1):
                    continue  # its depthwise layers give nothing that is at least 0 to quantize to one bit
                path = Path(folder) / f"{name}_w{bits[0]}a{bits[1]}.onnx"
                make(Bits(*bits)).save(path)
                yield from ((f"{path.stem} for {t}", path, t) for t, pairs in LARGE.items() if bits in pairs)
                path.unlink()


def parts_of(bundle: Path) -> dict[str, str]:
    """Member, or part of the manifest → hash of its bytes."""
    found = {}
    with zipfile.ZipFile(bundle) as archive:
        manifest = json.loads(archive.read("manifest.json"))
        for name in sorted(archive.namelist()):
            if name != "manifest.json":
                data = archive.read(name)
                found[name] = loaded(data) if data.startswith(b"\x7fELF") else data
    for variant in manifest.get("variants", []):
        board = variant["target"]["name"]
        for part in ("plan", "layers", "library", "weights"):
            found[f"{board}: {part}"] = json.dumps(variant[part], sort_keys=True).encode()
    found["model"] = json.dumps(manifest.get("model"), sort_keys=True).encode()
    return {name: hashlib.sha256(data).hexdigest()[:16] for name, data in found.items()}


def loaded(elf: bytes) -> bytes:
    """Name and contents of each section of a little-endian ELF file that is loaded, but for the hash of the whole."""
    wide = elf[4] == 2
    start = struct.unpack_from("<Q", elf, 0x28)[0] if wide else struct.unpack_from("<I", elf, 0x20)[0]
    size, count, names = struct.unpack_from("<3H", elf, 0x3A if wide else 0x2E)
    layout = "<IIQQQQ" if wide else "<6I"  # name, type, flags, address, offset, size
    sections = [struct.unpack_from(layout, elf, start + i * size) for i in range(count)]
    texts, found = sections[names][4], []
    for name, kind, flags, _, offset, length in sections:
        title = elf[texts + name : elf.index(b"\0", texts + name)]
        if flags & SHF_ALLOC and title != b".note.gnu.build-id":
            found += [title, b"" if kind == SHT_NOBITS else elf[offset : offset + length]]
    return b"\0".join(found)


def measure(quick: bool, only: str, output: Path | None) -> dict[str, dict[str, str] | str]:
    """Case → its parts; the message of one that is refused. What is known is in `output` at once."""
    found: dict[str, dict[str, str] | str] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, model, target in cases(quick):
            if only not in name:
                continue
            bundle = Path(folder) / "model.mpc"
            try:
                mp.compile(model, target=target, output=bundle)
                found[name] = parts_of(bundle)
            except Exception as error:
                found[name] = f"{type(error).__name__}: {error}"
            print(".", end="", file=sys.stderr, flush=True)
            if output:
                output.write_text(json.dumps(found, indent=1) + "\n")
    print(file=sys.stderr)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("-o", "--output", metavar="FILE.json", help="where the hashes go")
    parser.add_argument("--against", metavar="FILE.json", help="hashes to compare with")
    parser.add_argument("--quick", action="store_true", help="the models of tests/data alone")
    parser.add_argument("--only", default="", metavar="TEXT", help="cases whose name has this in it")
    args = parser.parse_args()
    found = measure(args.quick, args.only, Path(args.output) if args.output else None)
    if not args.against:
        return 0
    before, different = json.loads(Path(args.against).read_text()), 0
    for name, parts in found.items():
        old = before.get(name)
        if old == parts:
            continue
        different += 1
        if isinstance(old, dict) and isinstance(parts, dict):
            what = ", ".join(p for p in sorted({*old, *parts}) if old.get(p) != parts.get(p))
        else:
            what = f"was {old!r}, is {parts!r}"
        print(f"{name}: {what}")
    print(f"{len(found) - different} of {len(found)} bundles are the same")
    return int(different > 0)


if __name__ == "__main__":
    sys.exit(main())
