"""A fused layer as one scheduled function: the room's only entry."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from mpcompile.ir.formats import Buffer
from mpcompile.ir.layer import Layer
from mpcompile.kernels.architecture import Architecture, Tile
from mpcompile.kernels.build import build
from mpcompile.kernels.describe import Chosen, Forms, describe
from mpcompile.kernels.halo import store_whole
from mpcompile.kernels.overlap import overlapped
from mpcompile.kernels.spec import LayerSpec
from mpcompile.kernels.tvm_names import PrimFunc


@dataclass(eq=False)
class Lowered:
    """One kernel and what to call it with: `inputs`, `constants`, `outputs`, in this order.

    func: scheduled PrimFunc. Planes that a family reads as words are inputs [HP, WP, P, words], the same bytes as the
    buffer's.
    key: layers with equal keys share the function. tile: what the schedule decided, and tile_source: where that is
    from ("given", "default", "record", "transferred", with details), for the manifest. spec, architecture: what it was
    decided for.
    """

    func: PrimFunc
    key: str
    inputs: list[Buffer]
    constants: list[np.ndarray]
    outputs: list[Buffer]
    tile: dict
    tile_source: dict
    spec: LayerSpec
    architecture: Architecture


Tiles = Callable[[LayerSpec, Architecture], tuple[Tile, dict]]
"""(spec, architecture) → (tile, its source): what chooses tiles where none is given."""


def lower(
    layer: Layer,
    inputs: Forms,
    outputs: Forms,
    families: Chosen,
    architecture: Architecture,
    tile: Tile | None = None,
    tiles: Tiles | None = None,
) -> Lowered:
    """Kernel of `layer` for `architecture` (schedules.architecture_of a target).

    inputs, outputs: the stored forms of each tensor; families: of each (term, part). Without a `tile`, `tiles`
    chooses, and without that the schedule's default is taken. Raises ModelError naming the layer where a form is
    missing, TargetError for an unknown architecture.
    """
    described = describe(layer, inputs, outputs, families, architecture)
    spec = described.spec
    source = {"from": "given"}
    if tile is None:
        tile, source = tiles(spec, architecture) if tiles else (architecture.default_tile(spec), {"from": "default"})
    func = scheduled(spec, architecture, tile)
    key = hashlib.sha256(repr((spec, architecture, tile)).encode()).hexdigest()[:16]
    return Lowered(
        func, key, described.inputs, described.constants, described.outputs, tile.to_json(), source, spec, architecture
    )


@lru_cache(maxsize=512)
def scheduled(spec: LayerSpec, architecture: Architecture, tile: Tile) -> PrimFunc:
    """The PrimFunc of a layer under a tile of the architecture's schedules, whole output buffers and halos included."""
    outputs = [b for o in spec.outputs for b in o.buffers]
    even = architecture.evened(spec, tile)
    func, stages = build(even, architecture.kind)
    func = architecture.schedule(func, stages, even, tile)
    func = func if even is spec else overlapped(func, spec)
    return store_whole(func, len(func.params) - len(outputs), outputs, architecture.fill_halo)
