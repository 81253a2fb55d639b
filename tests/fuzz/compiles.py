"""Mutated ONNX files through `mpcompile compile` and, where that made a bundle, `mpcompile verify`: an exit code that is
promised, one line, and every buffer equal."""

from __future__ import annotations

import random
import tempfile
from functools import cache
from pathlib import Path

import onnx

from mpcompile.errors import MpError
from mpcompile.frontend import load
from mpcompile.targets import load_target
from mpcompile.targets.cpu import features
from tests.fuzz.child import checked, verb, warm_up
from tests.fuzz.imports import EXTERNAL, Imports
from tests.fuzz.kind import Aside, Kind, Number, Wrong
from tests.fuzz.random_networks import random_network
from tests.fuzz.witness import beyond_witnesses, is_small, witnessed

LEVELS = ("x86-64-v2", "x86-64-v3", "x86-64-v4")
TRIES = 12
"""Mutants that are made until one imports."""


@cache
def levels() -> tuple[str, ...]:
    """The targets that this CPU can run."""
    return tuple(name for name in LEVELS if set(load_target(name).features) <= features())


def _imports(content: bytes) -> bool:
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(content)
        (path.parent / "data.bin").write_bytes(EXTERNAL)
        try:
            return is_small(load(path))
        except Exception:  # a fault of the import is found by judging
            return False


def compiled_and_equal(path: Path, folder: Path, target: str, threads: tuple[int, ...], witness: str = "auto") -> str:
    """The outcome; `witness` is `verify`'s. Raises Wrong."""
    warm_up()
    bundle = folder / f"{target}.mpc"
    words = ("compile", str(path), "--target", target, "-o", str(bundle))
    if checked(verb(folder, *words), "compile"):
        if bundle.exists():
            raise Wrong("left: compile was refused, and left a bundle behind")
        return "refused"
    for count in threads:
        done = verb(folder, "verify", str(path), str(bundle), "--threads", str(count), "--witness", witness)
        if done.code == 1:
            said = next((line for line in done.stdout.splitlines() if "DIFFERENT" in line), "")
            if "expected nan" in said:
                return "not a number"  # of which no maximum and no code is defined
            raise Wrong(f"different: verify for {target} on {count} threads | {said}")
        if code := checked(done, "verify", (0, 3)):
            if "there is no reference for it" not in done.stderr:
                raise Wrong(f"exit {code}: verify refuses what was compiled | {done.stderr.strip()}")
            return "no reference"
    bundle.unlink()
    return "equal"


class Compiles(Kind):
    """Files that import, as a rule: those that do not are the kind `imports`."""

    name = "compiles"
    suffix = ".onnx"
    share = 0.2
    count = 500
    cpu_seconds = 90

    def edits(self, number: Number) -> int:
        return self.rng(number, "edits").choice((1, 1, 2, 3))

    def make(self, number: Number, without: frozenset[int] = frozenset()) -> bytes:
        for again in range(TRIES):
            content = self.edited(number, again)
            if _imports(content):
                break
        return self.edited(number, again, without) if without else content

    def edited(self, number: Number, again: int, without: frozenset[int] = frozenset()) -> bytes:
        edits = [self.rng(number, again, i) for i in range(self.edits(number)) if i not in without]
        return Imports().made(self.rng(number, again), edits)

    def judge(self, content: bytes, folder: Path, aside: Aside) -> str:
        path = folder / "model.onnx"
        path.write_bytes(content)
        (folder / "data.bin").write_bytes(EXTERNAL)
        rng, witness = random.Random(content), "auto"
        try:
            if not is_small(load(path)):
                return "large"
            if beyond_witnesses(onnx.ModelProto.FromString(content)):
                witness = "none"
        except MpError:
            pass
        return compiled_and_equal(path, folder, rng.choice(levels()), (rng.choice((1, 2)),), witness)

    def smaller(self, content: bytes):
        return Imports().smaller(content)


class Networks(Kind):
    """Random networks of supported operators: the witness's numbers, and a bundle for each level of this CPU that is equal
    on one thread and on two."""

    name = "networks"
    suffix = ".onnx"
    share = 0.25
    count = 300
    cpu_seconds = 240

    def make(self, number: Number, without: frozenset[int] = frozenset()) -> bytes:
        return random_network(self.rng(number)).SerializeToString()

    def judge(self, content: bytes, folder: Path, aside: Aside) -> str:
        path = folder / "model.onnx"
        path.write_bytes(content)
        graph = load(path)
        said = witnessed(graph, onnx.load(path), aside)
        if said != "compared":
            raise Wrong(f"unwitnessed: {said}")
        found = [compiled_and_equal(path, folder, target, (1, 2)) for target in levels()]
        if set(found) != {"equal"}:
            raise Wrong(f"refused: a network of supported operators is not compiled | {found}")
        return "equal"

    def smaller(self, content: bytes):
        return Imports().smaller(content)
