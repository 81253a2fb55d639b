"""One node of a file, as what makes a module of it wants to see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from mpcompile.errors import ModelError

Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class FileNode:
    """`inputs`, `outputs`: names, "" where one is left out; `constants`: of inputs, by position; `shapes`: tensor → its
    shape, the file's batch in front; `source`: the file, for messages."""

    source: str
    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    constants: Mapping[int, np.ndarray]
    shapes: Mapping[str, Shape]

    def attribute(self, name: str, default: Any = None) -> Any:
        found = self.attributes.get(name, default)
        return found.decode() if isinstance(found, bytes) else found

    def given(self, index: int) -> bool:
        return index < len(self.inputs) and self.inputs[index] != ""

    def constant(self, index: int, what: str) -> np.ndarray | None:
        """None where it is left out. Raises ModelError where it is computed."""
        if not self.given(index):
            return None
        if index not in self.constants:
            raise self.refused(f"its {what} is computed by the network; a constant would be accepted")
        return self.constants[index]

    def integers(self, attribute: str, index: int) -> tuple[int, ...] | None:
        """Of an attribute, or of the input that newer opsets have in its place."""
        if attribute in self.attributes:
            return tuple(self.attributes[attribute])
        found = self.constant(index, attribute)
        return None if found is None else tuple(int(n) for n in found.reshape(-1))

    def shape(self, index: int) -> Shape:
        """Of an input. Raises ModelError where the file does not tell."""
        found = self.shapes.get(self.inputs[index])
        if found is None:
            raise self.refused(f"the shape of its input {self.inputs[index]} is not known")
        return found

    def sizes(self, index: int) -> tuple[int, ...]:
        """Of an input's spatial axes."""
        found = self.shape(index)[2:]
        if any(n is None for n in found):
            raise self.refused(f"the shape of its input {self.inputs[index]} is not known")
        return tuple(n for n in found if n is not None)

    def refused(self, why: str) -> ModelError:
        return ModelError(f"{self.source}: node {self.name} ({self.op}) cannot be searched: {why}")


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}


class Operator(nn.Module):
    """A function of tensors, of which some are constants: `constants` by position."""

    def __init__(self, function: Any, constants: Mapping[int, Tensor] | None = None):
        super().__init__()
        self.function = function
        self.places = tuple(sorted(constants or {}))
        for place in self.places:
            self.register_buffer(f"constant{place}", (constants or {})[place])

    def forward(self, *given: Tensor) -> Any:
        values = list(given)
        for place in self.places:
            values.insert(place, getattr(self, f"constant{place}"))
        return self.function(*values)


def tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(array))
