"""What a bundle's manifest.json holds, as types that it is validated against when it is read. No TVM here.

The dataclasses of a plan (mpcompile.ir) write themselves; what is read may be anything, so each has an entry here whose
bounds keep a bundle with odd content from doing more than being refused. Where a plan's arguments leave their blocks is
found when they are made (arguments.py).
"""

from __future__ import annotations

import os
from typing import Annotated

from msgspec import Meta, Struct

from mpcompile.errors import ModelError
from mpcompile.files import validated
from mpcompile.ir.formats import FORMATS, Buffer
from mpcompile.ir.grid import Grid
from mpcompile.ir.plan import Arg, Call, Placed, Plan, Port
from mpcompile.runtime.aligned import ALIGNMENT

Name = Annotated[str, Meta(min_length=1)]
Size = Annotated[int, Meta(ge=0, lt=1 << 48)]
Extent = Annotated[int, Meta(ge=0, lt=1 << 32)]
Shape = tuple[Extent, ...]
Small = Annotated[int, Meta(gt=-(1 << 20), lt=1 << 20)]
"""Far beyond what 16 planes of 8 bits hold."""


# -- the plan ------------------------------------------------------------------------------------------------------------
class ArgEntry(Struct, array_like=True, forbid_unknown_fields=True):
    space: str
    offset: int
    dtype: str
    shape: tuple[int, ...]

    def arg(self) -> Arg:
        return Arg(self.space, self.offset, self.dtype, self.shape)


class CallEntry(Struct):
    function: Name
    layer: str
    args: tuple[ArgEntry, ...]

    def call(self) -> Call:
        return Call(self.function, self.layer, tuple(a.arg() for a in self.args))


class GridEntry(Struct):
    plane_weights: Annotated[tuple[Small, ...], Meta(min_length=1, max_length=16)]
    offset: Small
    lo: Small
    hi: Small
    step: Annotated[int, Meta(ge=1, lt=1 << 20)]

    def grid(self) -> Grid:
        """Raises ValueError where it is none."""
        return Grid(self.plane_weights, self.offset, self.lo, self.hi, self.step)


class BufferEntry(Struct):
    tensor: str
    format: str
    shape: Shape
    grid: GridEntry | None
    halo: tuple[Extent, Extent, Extent, Extent]
    beside: Annotated[str, Meta(pattern="^(planes|codes)?$")]

    def buffer(self) -> Buffer:
        """Raises ValueError where it is none."""
        if self.format not in FORMATS:
            raise ValueError(f"{self.tensor} is stored as {self.format!r}, not as {', '.join(FORMATS)}")
        if self.format in ("planes", "codes", "sums") and self.grid is None:
            raise ValueError(f"{self.tensor} is stored as {self.format} and has no grid")
        if self.format != "plain" and len(self.shape) != 3:
            raise ValueError(f"{self.tensor} is stored as {self.format} and has {len(self.shape)} axes")
        grid = self.grid.grid() if self.grid else None
        return Buffer(self.tensor, self.format, self.shape, grid, self.halo, self.beside)


class PlacedEntry(Struct):
    buffer: BufferEntry
    arg: ArgEntry
    written: Annotated[int, Meta(ge=-1)]
    last_read: Annotated[int, Meta(ge=-1)]

    def placed(self) -> Placed:
        return Placed(self.buffer.buffer(), self.arg.arg(), self.written, self.last_read)


class PortEntry(Struct):
    name: str
    shape: Shape
    dtype: Annotated[str, Meta(pattern="^(float32|bool|u?int8|u?int16|int32|int64)$")]

    def port(self) -> Port:
        return Port(self.name, self.shape, self.dtype)


class PlanEntry(Struct):
    inputs: tuple[PortEntry, ...]
    outputs: tuple[PortEntry, ...]
    calls: tuple[CallEntry, ...]
    buffers: tuple[PlacedEntry, ...]
    workspace_bytes: Size
    live_bytes: Size

    def plan(self) -> Plan:
        """Raises ValueError where its parts do not fit together."""
        calls, buffers = tuple(c.call() for c in self.calls), tuple(b.placed() for b in self.buffers)
        for placed in buffers:
            if max(placed.written, placed.last_read) > len(calls):
                raise ValueError(f"{placed.buffer.key} is of calls {placed.written} to {placed.last_read}")
        for ports in (self.inputs, self.outputs):
            if len({p.name for p in ports}) < len(ports):
                raise ValueError("two inputs, or two outputs, have one name")
        args = [*(a for c in calls for a in c.args), *(p.arg for p in buffers)]
        end = max((_end(a) for a in args if a.space == "workspace"), default=0)
        if self.workspace_bytes > end + ALIGNMENT:
            raise ValueError(f"the workspace has {self.workspace_bytes} bytes, of which {end} are used")
        inputs, outputs = tuple(p.port() for p in self.inputs), tuple(p.port() for p in self.outputs)
        return Plan(inputs, outputs, calls, buffers, self.workspace_bytes, self.live_bytes)


def _end(arg: Arg) -> int:
    """The byte behind an argument, at most: no element is larger than 8 bytes."""
    size = 8
    for extent in arg.shape:
        size *= max(0, extent)
    return arg.offset + size


# -- what is said of layers ----------------------------------------------------------------------------------------------
class PartEntry(Struct):
    input: str
    family: Name
    kernel: tuple[int, int, int, int]
    strides: tuple[int, int]
    groups: Annotated[int, Meta(ge=1)]
    macs: Annotated[int, Meta(ge=0)]
    weight_grid: GridEntry
    activation_grid: GridEntry | None


class OutputEntry(Struct):
    tensor: str
    formats: tuple[str, ...]
    grid: GridEntry | None


class LayerEntry(Struct):
    """As compiler/manifest.py writes it; only layers with kernels of ours have what has a default here."""

    name: str
    op: Name
    shape: Shape
    outputs: tuple[OutputEntry, ...]
    source: tuple[str, ...] = ()
    macs: Annotated[int, Meta(ge=0)] = 0
    tile: dict[str, int | bool | str] = {}
    tile_source: dict[str, str | float | bool] = {}
    parts: tuple[PartEntry, ...] = ()


# -- the whole -----------------------------------------------------------------------------------------------------------
class TargetEntry(Struct):
    """Of a variant: what the runtime reads of the board's description."""

    name: Name
    description: str
    arch: Name
    features: tuple[str, ...]
    kind: Name = "cpu"


class VariantEntry(Struct):
    target: TargetEntry
    plan: PlanEntry
    layers: tuple[LayerEntry, ...]
    library: str
    weights: tuple[str, ...]


class HeadEntry(Struct):
    name: Name
    description: str


class ModelEntry(Struct):
    source: str


class MemberEntry(Struct):
    bytes: Size
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class Envelope(Struct):
    """What archive.py adds to what the compiler says."""

    format: str
    format_version: int
    mpcompile: str
    tvm: str
    members: dict[str, MemberEntry]


class Manifest(Envelope):
    target: HeadEntry
    model: ModelEntry
    variants: Annotated[tuple[VariantEntry, ...], Meta(min_length=1)]


def manifest_of(path: str | os.PathLike, found: object) -> Manifest:
    """What a bundle's manifest.json holds. Raises ModelError in one line, with the key that is wrong."""
    manifest = validated(found, Manifest, lambda what: ModelError(f"{path}: manifest.json: {what}"))
    for i, variant in enumerate(manifest.variants):
        for member in (variant.library, *variant.weights):
            if member not in manifest.members:
                raise ModelError(f"{path}: manifest.json: variants[{i}]: there is no member {member}")
    if len({v.target.name for v in manifest.variants}) < len(manifest.variants):
        raise ModelError(f"{path}: manifest.json: two variants have one name")
    return manifest


def plan_of(found: object, wrong: str) -> Plan:
    """A plan as its to_json wrote it. Raises ModelError, in one line that begins with `wrong`."""
    entry = validated(found, PlanEntry, lambda what: ModelError(f"{wrong}: {what}"))
    return checked_plan(entry, wrong)


def checked_plan(entry: PlanEntry, wrong: str) -> Plan:
    """The plan that was read. Raises ModelError, in one line that begins with `wrong`, where its parts do not fit."""
    try:
        return entry.plan()
    except ValueError as error:
        raise ModelError(f"{wrong}: {error}") from error
