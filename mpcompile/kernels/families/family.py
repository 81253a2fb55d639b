"""What a kernel family is: one record of all that anybody asks of it.

    Σ_k w_k·a_k of a part = multiplier·D + offset·(window sum) + constant + border

`D` is what the family's expression gives, from the data as they are stored and the weights as it packs them; the rest
is common to all families (describe.py, build.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypedDict, TypeVar

import numpy as np

from mpcompile.ir.formats import Buffer
from mpcompile.ir.grid import Grid
from mpcompile.ir.layer import ContractPart
from mpcompile.kernels.architecture import Architecture
from mpcompile.kernels.spec import PartSpec
from mpcompile.kernels.stages import PartStages
from mpcompile.targets import Target

S = TypeVar("S", bound=PartSpec)


class Common(TypedDict):
    """The fields of every family's spec that follow from the part and its input."""

    data: Buffer
    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    pads: tuple[int, int, int, int]
    groups: int


@dataclass(frozen=True, eq=False)
class Given:
    """What a family is given of a part that it describes.

    data: the form of the input that it reads, with its grid. channels: of the layer's output; `padded` are computed.
    output: (HO, WO).
    """

    part: ContractPart
    data: Buffer
    channels: int
    padded: int
    output: tuple[int, int]
    architecture: Architecture

    @property
    def grid(self) -> Grid:
        """The input's."""
        return self.data.known_grid

    def common(self, groups: int) -> Common:
        """For a kernel of so many groups: the part's, or 1 where its weights are spread over a dense kernel."""
        part = self.part
        return Common(
            data=self.data,
            kernel=(part.q.shape[2], part.q.shape[3]),
            strides=(part.strides[0], part.strides[1]),
            dilations=(part.dilations[0], part.dilations[1]),
            pads=(part.pads[0], part.pads[1], part.pads[2], part.pads[3]),
            groups=groups,
        )


@dataclass(frozen=True, eq=False)
class PackedPart(Generic[S]):
    """A part as its family computes it.

    spec: all but what describe.py adds (sums, constant, border). weight: packed. reach: how far from 0 any partial sum of
    multiplier·D + offset·(window sum) may come. base: the activation that a stored 0 stands for, so that base·Σ w is a
    constant of each output channel; `constant`, int64 [O], is added to it. table: int32 of the spec's `table_shape`, None
    where that is ().
    """

    spec: S
    weight: np.ndarray
    reach: int
    base: int
    constant: np.ndarray | int = 0
    table: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Expressed:
    """A part as tensor expressions: its stages, and D as an int32 expression of (y, x, output channel)."""

    stages: PartStages
    value: Callable[[Any, Any, Any], Any]


@dataclass(frozen=True)
class Family:
    """A way to compute a contraction.

    name: in manifests, records and on command lines.
    reads: the stored form of its input: "planes" or "codes".
    cycles: (part, grid of the input, target, (HO, WO)) → expected cycles of one core; None where it cannot compute it.
    describe: a part → its spec, packed weights and constants.
    compute: (tag, spec, data, weight, layer) → expressions over placeholders, stages named by the tag; the data are the
        buffer, or, where the spec says `word`, its bytes as such words [HP, WP, P, words]. A spec with a table gives it
        as `table`.
    step: its spec → what a record of its schedule is told apart by, beside shapes: the text must stay as it is, or
        records are no longer found.
    sample: (tensor, channels, pads) → a small contraction that it computes of a tensor of so many channels, which stands
        for a layer that reads the tensor so when another layer is measured alone.
    sums: whether it reads window sums of the part's input.
    rate: (target, weight planes, activation planes) → products a cycle of one core in a long inner product, by the
        target's figures alone; 0 where nothing is said of it.
    only: where it can compute a part, no other family is worth asking.
    """

    name: str
    reads: str
    cycles: Callable[[ContractPart, Grid, Target, tuple[int, int]], float | None]
    describe: Callable[[Given], PackedPart]
    compute: Callable[..., Expressed]
    step: Callable[[Any], str]
    sample: Callable[[str, int, tuple[int, int, int, int]], ContractPart]
    sums: Callable[[ContractPart], bool] = lambda part: False
    rate: Callable[[Target, int, int], float] = lambda target, weight_planes, activation_planes: 0.0
    only: bool = False


SAMPLE_OUTPUTS = 16
"""Output channels of a sample that is not depthwise."""


def sample(
    tensor: str,
    channels: int,
    pads: tuple[int, int, int, int],
    grid: Grid,
    outputs: int = SAMPLE_OUTPUTS,
    kernel: tuple[int, int] = (1, 1),
) -> ContractPart:
    """A convolution over all channels with weights on `grid`, of a 1×1 kernel: what most families give as their sample."""
    q = np.random.default_rng(0).choice(grid.values, (outputs, channels, *kernel))
    return ContractPart(tensor, q, grid, pads=pads)
