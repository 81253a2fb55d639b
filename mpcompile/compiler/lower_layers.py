"""Layers to kernels: each layer's scheduled PrimFunc and constants, and the function's name; equal layers share one."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from mpcompile.compiler.passes.choose_formats import FormatChoice
from mpcompile.errors import ModelError
from mpcompile.ir.formats import Buffer
from mpcompile.ir.graph import Graph
from mpcompile.ir.layer import Layer
from mpcompile.kernels.architecture import Tile
from mpcompile.kernels.layer import Lowered, Tiles, lower
from mpcompile.schedules import architecture_of
from mpcompile.targets import Target


@dataclass(frozen=True, eq=False)
class NamedKernel:
    """A layer's kernel, and the name of its function in the library."""

    function: str
    lowered: Lowered


def lower_assigned(
    layer: Layer, assignment: FormatChoice, target: Target, tile: Tile | None = None, tiles: Tiles | None = None
) -> Lowered:
    """The kernel of one layer of a graph for which `assignment` was chosen; `tile` and `tiles` as for
    kernels.layer.lower. Raises ModelError naming the layer."""

    def stored(tensors: list[str]) -> dict[str, list[Buffer]]:
        return {t: assignment.buffers.get(t, []) for t in dict.fromkeys(tensors)}

    outputs = stored(layer.outputs)
    wanted = [b for buffers in outputs.values() for b in buffers]
    if not wanted:
        raise ModelError(f"layer {layer.name}: nothing was chosen to be stored of {', '.join(layer.outputs)}")
    families = assignment.families.get(layer.name, {})
    found = lower(layer, stored(layer.inputs), outputs, families, architecture_of(target), tile, tiles)
    if found.outputs != wanted:
        raise ModelError(
            f"layer {layer.name}: its kernel writes {', '.join(b.key for b in found.outputs)}, "
            f"the graph stores {', '.join(b.key for b in wanted)}"
        )
    return found


def lower_layers(
    graph: Graph,
    assignment: FormatChoice,
    target: Target,
    given: Mapping[str, Tile],
    tiles: Tiles | None,
    taken: Collection[str],
    progress: Callable[[str], None],
) -> dict[str, NamedKernel]:
    """Layer → its kernel, in the graph's order. `given`: layer → tile; `tiles` chooses the others'. `taken`: names of
    functions that are there already."""
    names: dict[str, str] = {}
    kernels: dict[str, NamedKernel] = {}
    for layer in graph.nodes:
        if isinstance(layer, Layer):
            progress(f"lowering {layer.name}")
            lowered = lower_assigned(layer, assignment, target, given.get(layer.name), tiles)
            if lowered.key not in names:
                names[lowered.key] = _fresh({*taken, *names.values()}, layer.name)
            kernels[layer.name] = NamedKernel(names[lowered.key], lowered)
    return kernels


def kernels_text(kernels: Mapping[str, NamedKernel]) -> str:
    """For --dump-ir: every function once, with the layers that it computes and their tile."""
    layers: dict[str, list[str]] = {}
    for layer, kernel in kernels.items():
        layers.setdefault(kernel.function, []).append(layer)
    parts = []
    for function, names in layers.items():
        lowered = kernels[names[0]].lowered
        script = lowered.func.script()  # pyright: ignore[reportAttributeAccessIssue]
        parts.append(
            f"# {function}: {', '.join(names)}\n# tile {lowered.tile}, from {lowered.tile_source}\n"
            f"# reads {', '.join(b.key for b in lowered.inputs)}; {len(lowered.constants)} constants; "
            f"writes {', '.join(b.key for b in lowered.outputs)}\n{script}\n"
        )
    return "\n".join(parts) or "# no layers\n"


def _fresh(taken: Collection[str], layer: str) -> str:
    """mp_LAYER as an identifier, with a number where that is taken."""
    base = "mp_" + re.sub(r"\W+", "_", layer).strip("_")
    name, n = base, 1
    while name in taken:
        n += 1
        name = f"{base}__{n}"
    return name
