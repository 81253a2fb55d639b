"""What the latency table says of a network at other bits, against the network compiled and timed whole.

    python -m benchmarks.prediction FOLDER [NAME …]     the rows; what was measured and compiled in FOLDER is used again

For each network: its table over the candidates, then ASSIGNMENTS random choices of bits that the table never saw, each
compiled in the families that the table chose, as the search does it, all timed in turn. The error is that of each
prediction, |predicted / measured − 1|; beside it that of always guessing the median of the measured times. The second
row is after the search's own calibration, a slope and an offset (search/calibrate.py), from the networks whose
searched layers all have the same bits, UNIFORM, which are not among those that are judged.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.networks import Bits, resnet18
from benchmarks.row import Row
from mpcompile.api.pool_workbench import PoolWorkbench
from mpcompile.api.profile import profile
from mpcompile.files import atomic_path
from mpcompile.frontend import load
from mpcompile.ir.bits import BitCandidates, BitPair
from mpcompile.ir.graph import Graph
from mpcompile.latency.measure import measure
from mpcompile.latency.requantize import knobs, requantize
from mpcompile.latency.table import LatencyTable, LayerBits
from mpcompile.remote.pool import DevicePool
from mpcompile.runtime import open_bundle
from mpcompile.search.calibrate import calibrate
from mpcompile.targets import load_target

ASSIGNMENTS, SEED = 20, 20
UNIFORM = (BitPair(1, 1), BitPair(2, 2), BitPair(4, 4), BitPair(8, 8))
ENDS = 8
"""Bits of the first and the last layer, which stay as they are."""
MOST = 5.0


@dataclass(frozen=True)
class Subject:
    """A network, and the candidate bits of its layers between the ends."""

    name: str
    save: Callable[[Path], None]
    bits: BitCandidates


def searched(path: Path) -> None:
    """The search's default network, untrained."""
    import torch

    from mpcompile.search.config import NetworkOptions
    from mpcompile.search.export import export
    from mpcompile.search.models import ResNet

    shape = NetworkOptions()
    torch.manual_seed(0)
    network = ResNet(shape.widths, shape.blocks, channels=1, side=32, stem_stride=shape.stem_stride)
    network.start_clips(torch.rand(8, 1, 32, 32))
    network.assign(network.uniform(2, 2))
    export(network.eval(), path)


SUBJECTS = (
    Subject("the search's default network", searched, BitCandidates.parse("w12348a12348")),
    Subject("ResNet-18 224²", lambda path: resnet18(Bits(2, 2)).save(path), BitCandidates.parse("w1234a1248")),
)


def rows(
    folder: Path,
    rounds: int,
    *,
    target: str = "native",
    threads: int = 1,
    subjects: Sequence[Subject] = SUBJECTS,
    say: Callable[[str], None] = lambda line: None,
) -> list[Row]:
    """Two for each network. Raises MpError's subclasses."""
    found = []
    for subject in subjects:
        table, predicted, measured = compare(subject, folder, rounds, target, threads, say)
        found += _rows(subject, table, predicted, measured)
    return found


def compare(
    subject: Subject, folder: Path, rounds: int, target: str, threads: int, say: Callable[[str], None]
) -> tuple[LatencyTable, np.ndarray, np.ndarray]:
    """The table; seconds that it predicts, and seconds measured, of UNIFORM's networks and then of the random ones."""
    model, graph, table = _table(subject, folder, target, threads, rounds, say)
    bench = PoolWorkbench(load_target(target), DevicePool.local(), threads, rounds)
    chosen = assignments(graph, subject)
    bundles = []
    for i, assignment in enumerate(chosen):
        path = model.with_name(f"{model.stem}-{i}.mpc")
        if not path.exists():
            say(f"compiling {subject.name}, {i + 1} of {len(chosen)}")
            bench.compile(at(graph, assignment), path, table)
        bundles.append(path)
    with ExitStack() as stack:
        timers = {
            str(i): stack.enter_context(open_bundle(path, threads=threads)).timer() for i, path in enumerate(bundles)
        }
        say(f"timing {len(timers)} networks")
        times = measure(timers, rounds=rounds, min_time=0.005)
    predicted = [table.predict(assignment) for assignment in chosen]
    return table, np.array(predicted), np.array([times[name].seconds for name in timers])


def _table(
    subject: Subject, folder: Path, target: str, threads: int, rounds: int, say: Callable[[str], None]
) -> tuple[Path, Graph, LatencyTable]:
    folder.mkdir(parents=True, exist_ok=True)
    model = folder / f"{''.join(c if c.isalnum() else '_' for c in subject.name)}.onnx"
    lut = model.with_suffix(".json")
    if not model.exists():
        with atomic_path(model) as temporary:
            subject.save(temporary)
    if not lut.exists():
        say(f"measuring the table of {subject.name}")
        table = profile(model, target, bits=subject.bits, cache=f"{lut}.cells", threads=threads, rounds=rounds)
        table.save(lut)
    return model, load(model), LatencyTable.load(lut)


def assignments(graph: Graph, subject: Subject) -> list[dict[str, BitPair]]:
    """UNIFORM's, where the candidates have them, then ASSIGNMENTS random ones, always the same."""
    rng = np.random.default_rng(SEED)
    found = [_assign(graph, lambda: w, lambda: a) for w, a in UNIFORM if (w, a) in subject.bits]
    draws = (lambda: int(rng.choice(subject.bits.weights))), (lambda: int(rng.choice(subject.bits.activations)))
    return found + [_assign(graph, *draws) for _ in range(ASSIGNMENTS)]


def _assign(graph: Graph, w: Callable[[], int], a: Callable[[], int]) -> dict[str, BitPair]:
    """Layer → bits; layers that read one quantizer agree, the ends keep theirs."""
    found = knobs(graph)
    ends = {name for name, knob in found.items() if (knob.w, knob.a) == (ENDS, ENDS)}
    bits: dict[str, int] = {}
    for knob in found.values():
        for q in knob.quantizers:
            bits.setdefault(q, knob.a if knob.name in ends else a())
    return {name: BitPair(knob.w if name in ends else w(), bits[knob.quantizers[0]]) for name, knob in found.items()}


def at(graph: Graph, assignment: LayerBits) -> Graph:
    """The network at these bits."""
    found = knobs(graph)
    activations: Mapping[str, int] = {q: a for k, (_, a) in assignment.items() for q in found[k].quantizers}
    return requantize(graph, {k: w for k, (w, _) in assignment.items()}, activations)


def _rows(subject: Subject, table: LatencyTable, predicted: np.ndarray, measured: np.ndarray) -> list[Row]:
    known, judged = slice(None, -ASSIGNMENTS), slice(-ASSIGNMENTS, None)
    calibration = calibrate(predicted[known], measured[known])
    truth = measured[judged]
    guess = _errors(np.full_like(truth, np.median(truth)), truth)
    beside = f"guessing the median {np.median(guess):.1f} %; {1e3 * truth.min():.2f} to {1e3 * truth.max():.2f} ms"
    found = []
    for how, calibrated in (("", predicted), (", calibrated", calibration(predicted))):
        errors = _errors(calibrated[judged], truth)
        what = f"{subject.name}, {ASSIGNMENTS} random {subject.bits}{how}: median error"
        note = f"largest {errors.max():.1f} %; {beside}"
        if how:
            note += (
                f"; ×{calibration.slope:.3f} {1e6 * calibration.offset:+.0f} µs from {len(predicted[known])} "
                "uniform networks"
            )
        detail = {
            "predicted": calibrated.tolist(),
            "measured": measured.tolist(),
            "largest": errors.max(),
            "guess": float(np.median(guess)),
            "measured_on": table.measured_on,
        }
        found.append(Row("latency table", what, float(np.median(errors)), "% error", MOST, note, detail))
    return found


def _errors(predicted: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Percent."""
    return 100 * np.abs(predicted / measured - 1)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.prediction", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="gets what is compiled and measured, which a later run uses again")
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="a network's, or how it begins; default: all of " + ", ".join(s.name for s in SUBJECTS),
    )
    asked = parser.parse_args()
    for name in asked.names:
        if not any(s.name.startswith(name) for s in SUBJECTS):
            parser.error(f"there is no network {name}")
    subjects = [s for s in SUBJECTS if not asked.names or any(s.name.startswith(n) for n in asked.names)]
    for row in rows(asked.folder, 11, subjects=subjects, say=lambda line: print(line, file=sys.stderr, flush=True)):
        print(" | ".join(row.cells()))


if __name__ == "__main__":
    main()
