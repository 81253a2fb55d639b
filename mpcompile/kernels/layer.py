"""A fused layer as one scheduled function: the room's only entry."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from mpcompile.formats import Buffer
from mpcompile.kernels.build import build
from mpcompile.kernels.describe import describe
from mpcompile.kernels.halo import store_whole
from mpcompile.kernels.spec import LayerSpec
from mpcompile.layer import Layer


@dataclass(eq=False)
class Lowered:
    """One kernel and what to call it with: `inputs`, `constants`, `outputs`, in this order.

    func: scheduled PrimFunc. Its planes inputs that a popcount reads are uint64 [HP, WP, P, W], the same bytes as the
    buffer's.
    key: layers with equal keys share the function. tile: what the schedule decided, for the manifest.
    """

    func: object
    key: str
    inputs: list[Buffer]
    constants: list[np.ndarray]
    outputs: list[Buffer]
    tile: dict


def lower(layer: Layer, inputs: dict[str, list[Buffer]], outputs: dict[str, list[Buffer]],
          families: dict[tuple[int, int], str], target, tile=None) -> Lowered:
    """Kernel of `layer` for `target` (mpcompile.targets.Target).

    inputs, outputs: the stored forms of each tensor; families: of each (term, part). Without a `tile` the schedule's
    default is taken. Raises ModelError naming the layer where a form is missing, TargetError for an unknown
    architecture.
    """
    from mpcompile.schedules import architecture_of

    architecture = architecture_of(target)
    described = describe(layer, inputs, outputs, families, architecture)
    spec = described.spec
    tile = tile or architecture.default_tile(spec)
    func = _scheduled(spec, architecture, tile)
    key = hashlib.sha256(repr((spec, architecture, tile)).encode()).hexdigest()[:16]
    return Lowered(func, key, described.inputs, described.constants, described.outputs, tile.to_json())


@lru_cache(maxsize=512)
def _scheduled(spec: LayerSpec, architecture, tile):
    func, stages = build(spec)
    outputs = [b for o in spec.outputs for b in o.buffers]
    func = architecture.schedule(func, stages, spec, tile)
    return store_whole(func, len(func.params) - len(outputs), outputs)
