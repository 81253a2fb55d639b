"""Mutated ONNX files through the import: a graph, or one line that refuses; and a graph means what witnesses compute."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import onnx

from mpcompile.errors import MpError
from mpcompile.frontend import load
from tests.fuzz.kind import Aside, Kind, Number, refused
from tests.fuzz.mutate_onnx import Mutator, bridge, flipped, read, seed_files
from tests.fuzz.random_networks import random_network
from tests.fuzz.witness import witnessed

EXTERNAL = bytes(range(256)) * 64
"""What data.bin beside a model holds."""
FLIPS = 0.1
"""Files of which bytes are flipped."""


class Imports(Kind):
    name = "imports"
    suffix = ".onnx"
    share = 0.35
    count = 10_000

    def edits(self, number: Number) -> int:
        return self.rng(number, "edits").choice((1, 1, 2, 2, 3, 4, 5))

    def make(self, number: Number, without: frozenset[int] = frozenset()) -> bytes:
        rng = self.rng(number)
        edits = [self.rng(number, i) for i in range(self.edits(number)) if i not in without]
        content = self.made(rng, edits)
        return flipped(content, rng) if rng.random() < FLIPS else content

    def made(self, rng: random.Random, edits: list[random.Random]) -> bytes:
        """A file, mutated once by each of `edits`."""
        mutator = Mutator(self.seed(rng))
        for edit in edits:
            mutator.edit(edit)
        return mutator.model.SerializeToString()

    def seed(self, rng: random.Random) -> onnx.ModelProto:
        found = read(rng.choice(seed_files())) if rng.random() < 0.5 else None
        return found or random_network(rng, 4)

    def judge(self, content: bytes, folder: Path, aside: Aside) -> str:
        path = folder / "model.onnx"
        path.write_bytes(content)
        (folder / "data.bin").write_bytes(EXTERNAL)
        try:
            graph = load(path)
        except MpError as error:
            return refused(error)
        try:
            model = onnx.load(path)
        except Exception:  # onnx-ir reads what onnx does not
            return "not taken by onnx"
        try:
            return witnessed(graph, model, aside)
        except MpError as error:
            refused(error)
            return "no reference"

    def smaller(self, content: bytes) -> Iterator[bytes]:
        """Without a node, the last first; without unread constants; without value infos."""
        try:
            whole = onnx.ModelProto.FromString(content)
        except Exception:
            return
        for index in reversed(range(len(whole.graph.node))):
            model = onnx.ModelProto.FromString(content)
            node = model.graph.node[index]
            if node.input and node.output:
                bridge(model.graph, node)
            del model.graph.node[index]
            yield model.SerializeToString()
        model = onnx.ModelProto.FromString(content)
        del model.graph.value_info[:], model.metadata_props[:]
        read = {i for n in model.graph.node for i in n.input} | {o.name for o in model.graph.output}
        kept = [t for t in model.graph.initializer if t.name in read]
        del model.graph.initializer[:]
        model.graph.initializer.extend(kept)
        yield model.SerializeToString()
