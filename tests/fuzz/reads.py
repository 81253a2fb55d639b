"""Random networks over all operators that the documentation lists, in QDQ, QONNX and QOperator: read as ONNX Runtime or
qonnx computes them, but for ties. Every so many are compiled, too, and every buffer equals the reference."""

from __future__ import annotations

from pathlib import Path

import onnx

from mpcompile.errors import MpError
from mpcompile.frontend import load
from tests.fuzz.compiles import compiled_and_equal
from tests.fuzz.imports import Imports
from tests.fuzz.kind import Aside, Kind, Number, Wrong
from tests.fuzz.random_networks import FORMATS, random_network
from tests.fuzz.witness import witnessed

COMPILED = 25
"""One of so many is compiled for this machine."""


class Reads(Kind):
    name = "reads"
    suffix = ".onnx"
    share = 0.2
    count = 10_000
    cpu_seconds = 120

    def make(self, number: Number, without: frozenset[int] = frozenset()) -> bytes:
        network = random_network(self.rng(number), 9, FORMATS[number[1] % len(FORMATS)], wide=True)
        network.producer_name = "compiled" if number[1] % COMPILED == 0 else "read"
        return network.SerializeToString()

    def judge(self, content: bytes, folder: Path, aside: Aside) -> str:
        path = folder / "model.onnx"
        path.write_bytes(content)
        model = onnx.load(path)
        try:
            graph = load(path)
        except MpError as error:
            raise Wrong(f"refused: {str(error).rpartition('): ')[2]} | {error}") from error
        said = witnessed(graph, model, aside)
        if said != "compared":
            raise Wrong(f"unwitnessed: {said}")
        if model.producer_name != "compiled":
            return said
        if (found := compiled_and_equal(path, folder, "native", (1,), "none")) != "equal":
            raise Wrong(f"not compiled: {found}")
        return found

    def smaller(self, content: bytes):
        return Imports().smaller(content)
