"""Family `winograd`: levels times weights by tiles of outputs, in exact integers (winograd_tile.py): of a 3×3 kernel
36 products for 16 outputs and each channel, not 144, where a CPU multiplies 16 bits.

    Σ_k w_k·a_k = m_w·m_a·Σ_k w8_k·l_k + …      w = m_w·w8 + o_w,  a = m_a·l + lo_a  (level l in 0..255)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mpcompile.ir import grid as grids
from mpcompile.ir.grid import Grid
from mpcompile.ir.layer import ContractPart
from mpcompile.kernels.accumulators import dot_reach
from mpcompile.kernels.families import dot_step, winograd_compute
from mpcompile.kernels.families.dot_step import DotInstr
from mpcompile.kernels.families.family import Expressed, Family, Given, PackedPart, sample
from mpcompile.kernels.families.winograd_codes import Codes
from mpcompile.kernels.families.winograd_tile import BYTE_TILES, TILES, ByteTile, WinogradTile, middle
from mpcompile.kernels.spec import LayerSpec, PartSpec
from mpcompile.kernels.stages import PartStages
from mpcompile.kernels.weights import dot_form, dot_weights, round_up
from mpcompile.targets import Target

KERNEL = 3, 3
LEAST_CHANNELS, LEAST_SIZE = 16, 4
"""With fewer channels, or smaller maps, transforming costs more than it saves."""

_TRANSFORM = 6.0
"""Work on a transformed number of an input channel or of an output, in products."""
_OUTPUT = 40.0
"""Work beside, for each output value, in products."""
TOGETHER = 28
"""Tiles that weights serve, at least, once they are transformed, where a layer has as many."""
GROUP = 64
"""Output channels that are computed together, as a rule."""
MOST_TOGETHER = 1 << 20
"""Bytes of transformed levels of some lines and of products of one group."""
MOST_STORED = 2 << 20
"""Bytes of a layer's transformed weights that are stored where a CPU multiplies 16 bits. More of them would have to come
from memory, where making them anew of an eighth as many bytes takes less time."""
_MADE, _READ = 3.5, 0.5
"""Work on a transformed weight that is made, or read, in products."""

_LEVEL, _SUM = 10.0, 27.0
"""Where a CPU multiplies bytes: work on each byte of a transformed level, and on a sum, in products."""
_MADE_BYTE, _READ_BYTE = 8.0, 16.0
"""There, work on each byte of a transformed weight that is made (twice as much where it is of 16 bits), in the second
cache, and on each byte that is read of the weights: in a network they come from the third cache, and are read again for
each chunk of lines where they do not fit the second. `dot` reads a byte a weight. Measured in ResNet-18 on Sapphire
Rapids, as are those before."""

_BESIDE = 1.3
"""There, how much longer a layer of 16 bits takes in a network than its work says: alone those of ResNet-18 at W8A8 win
1.24 and 1.35 times against dot, which multiplies bytes, and in the network nothing."""


@dataclass(frozen=True, kw_only=True)
class WinogradSpec(PartSpec):
    """middle: what is taken from each level. made: the kernel transforms the weights, which are int8, or `codes` of few
    bits; else they are stored as the tile multiplies them."""

    family = "winograd"
    instr: DotInstr
    tile: WinogradTile
    middle: int
    made: bool
    codes: Codes | None

    @property
    def table_shape(self) -> tuple[int, ...]:
        """Of the tile's `excess`."""
        blocks = self.weight_shape[0 if self.made else 1]
        return (*self.tile.outputs, blocks * self.instr.lanes) if isinstance(self.tile, ByteTile) else ()


@dataclass(frozen=True)
class WinogradStages(PartStages[WinogradSpec]):
    """half, tiles: of the data, transformed along one axis and along both. filters, weights: of the weights, "" where
    they are stored transformed. products: of tiles and weights. sums: of those, transformed along one axis."""

    half: str
    tiles: str
    filters: str
    weights: str
    products: str
    sums: str


def cycles(part: ContractPart, in_grid: Grid, target: Target, output: tuple[int, int]) -> float | None:
    """Activations of at most 256 levels, weights m·int8 + o, 3×3 kernels whose filters' sums fit, on maps and channels
    that fill tiles, where a CPU multiplies 16 bits in vectors as long as were measured."""
    widths = _widths(target)
    tile = choose(part, in_grid, output, widths) if widths else None
    if tile is None:
        return None
    beside = _BESIDE if 8 in widths and tile.bits == 16 else 1.0
    return beside * _work(tile, part, output, min(widths)) / target.dot_rate(0)


def _widths(target: Target) -> tuple[int, ...]:
    """Bits of the operands that it multiplies as fast as was measured."""
    if target.has_vnni and target.vector_bits == 512:
        return 8, 16
    return (16,) if target.multiplies_16_bits else ()


def choose(
    part: ContractPart, in_grid: Grid, output: tuple[int, int], widths: Sequence[int] = (16,)
) -> WinogradTile | None:
    """The cheapest tile that gives every output exactly, of operands of such `widths` in bits; None where there is none,
    or where tiles do not pay."""
    if not _has_form(part, in_grid, output):
        return None
    tiles = [tile for tile in (*BYTE_TILES, *TILES) if tile.bits in widths]
    if 8 in widths:
        tiles = [tile for tile in tiles if _stay_near(tile, part, output)]
    fitting = [tile for tile in tiles if _fits(tile, part, in_grid.levels - 1)]
    return min(fitting, key=lambda tile: _work(tile, part, output, min(widths)), default=None)


def lines(tile: WinogradTile, height: int, width: int) -> int:
    """Lines of outputs that are computed together: a divisor of the height, whose tiles are whole."""
    whole = (n for n in range(1, height + 1) if height % n == 0 and (n % tile.outputs[0] == 0 or n == height))
    return next((n for n in whole if tile.count(n, width) >= TOGETHER), height)


def _stay_near(tile: WinogradTile, part: ContractPart, output: tuple[int, int]) -> bool:
    """Whether what is transformed and multiplied at once stays in the second cache: a map that no lines of whole tiles
    divide is computed all at once."""
    together = tile.count(lines(tile, *output), output[1])
    return tile.products * together * (GROUP * 4 + part.q.shape[1] * tile.bits // 8) <= MOST_TOGETHER


def _has_form(part: ContractPart, in_grid: Grid, output: tuple[int, int]) -> bool:
    return (
        in_grid.levels <= 256
        and dot_form(part.grid) is not None
        and tuple(part.q.shape[2:]) == KERNEL
        and tuple(part.strides) == tuple(part.dilations) == (1, 1)
        and part.groups == 1
        and min(part.q.shape[:2]) >= LEAST_CHANNELS
        and min(output) >= LEAST_SIZE
    )


def _fits(tile: WinogradTile, part: ContractPart, max_level: int) -> bool:
    """By the grid where that suffices, else by the filters themselves."""
    form = dot_form(part.grid)
    assert form is not None
    furthest = max(abs(part.grid.lo - form[1]), abs(part.grid.hi - form[1])) // form[0]
    by_grid = tile.holds(furthest, max_level)
    if not (by_grid or (isinstance(tile, ByteTile) and tile.holds_levels(max_level))):
        return False
    most = tile.sums(max_level)
    if by_grid and furthest * part.q[0].size <= most:
        return True
    w8, _, _ = dot_weights(part.q, part.grid)
    if not by_grid:
        transformed = tile.transform(w8)
        if transformed.min() < -128 or transformed.max() > 127:
            return False
    return int(np.abs(w8.astype(np.int64)).sum((1, 2, 3)).max()) <= most


def _work(tile: WinogradTile, part: ContractPart, output: tuple[int, int], unit: int) -> float:
    """In products of `unit` bits."""
    if unit == 8:
        return _work_in_bytes(tile, part, output)
    outputs, channels, tiles = round_up(part.q.shape[0], 16), round_up(part.q.shape[1], 2), tile.count(*output)
    weight = _READ if _stored(tile, part, output, unit) else _MADE
    at = channels * outputs * (tiles + weight * max(1, tiles // TOGETHER)) + _TRANSFORM * tiles * (channels + outputs)
    return tile.products * at + output[0] * output[1] * outputs * _OUTPUT


def _work_in_bytes(tile: WinogradTile, part: ContractPart, output: tuple[int, int]) -> float:
    """In products of bytes, of which a CPU does twice as many as of 16 bits."""
    outputs, channels, tiles = round_up(part.q.shape[0], 16), round_up(part.q.shape[1], 4), tile.count(*output)
    width = tile.bits // 8
    of_weights = min(_stored_in_bytes(tile, part, tiles), _made_in_bytes(tile, part, tiles))
    at = width * channels * outputs + _LEVEL * width * channels + _SUM * outputs
    return tiles * tile.products * at + channels * outputs * of_weights + output[0] * output[1] * outputs * _OUTPUT


def _stored_in_bytes(tile: WinogradTile, part: ContractPart, tiles: int) -> float:
    """Work on what is stored of a filter of one input channel, beyond what dot reads of it."""
    stored, taps = tile.bits // 8 * tile.products, part.q[0, 0].size
    far = max(1, tiles // TOGETHER) if stored * part.q[:, :, 0, 0].size > MOST_STORED else 1
    return _READ_BYTE * (far * stored - taps)


def _made_in_bytes(tile: WinogradTile, part: ContractPart, tiles: int) -> float:
    """The same of what is made."""
    width, taps = tile.bits // 8, part.q[0, 0].size
    codes = Codes.of(part.grid, False)
    read = codes.bytes(taps) if codes else taps
    return max(1, tiles // TOGETHER) * _MADE_BYTE * width * width * tile.products + _READ_BYTE * (read - taps)


def _stored(tile: WinogradTile, part: ContractPart, output: tuple[int, int], unit: int) -> bool:
    """Whether the bundle holds the transformed weights."""
    if unit == 8:
        tiles = tile.count(*output)
        return _stored_in_bytes(tile, part, tiles) <= _made_in_bytes(tile, part, tiles)
    return tile.bits // 8 * tile.products * part.q.shape[0] * part.q.shape[1] <= MOST_STORED


def describe(given: Given) -> PackedPart[WinogradSpec]:
    part, grid_a = given.part, given.grid
    steps = [(bits, given.architecture.tile_instruction(bits, given.padded)) for bits in (8, 16)]
    by_bits = {bits: instr for bits, instr in steps if instr}
    tile = choose(part, grid_a, given.output, tuple(by_bits))
    assert tile is not None, f"tiles were chosen for weights of shape {part.q.shape}"
    instr = by_bits[tile.bits]
    w8, m, o = dot_weights(part.q, part.grid)
    multiplier, offset = m * grid_a.step, o * grid_a.step
    max_level = grid_a.levels - 1
    reach = dot_reach(w8, max_level, multiplier, offset)
    outputs, channels = round_up(given.padded, instr.lanes), round_up(part.q.shape[1], instr.group)
    made = not _stored(tile, part, given.output, min(by_bits))
    codes = Codes.of(part.grid, channels > part.q.shape[1]) if made else None
    if not made:
        weight = dot_step.pack_weights(tile.transform(w8), instr, outputs, channels)
        weight = weight.reshape(
            outputs // instr.lanes, tile.products, channels // instr.group, instr.lanes, instr.group
        )
        weight = np.ascontiguousarray(weight.transpose(1, 0, 2, 3, 4))
    else:
        weight = dot_step.pack_weights(w8, replace(instr, weight_dtype="int8"), outputs, channels)
        weight = weight.transpose(0, 3, 1, 2, 4, 5).reshape(
            outputs // instr.lanes, channels // instr.group, -1, instr.lanes, instr.group
        )
        weight = np.ascontiguousarray(weight) if codes is None else codes.pack(weight)
    spec = WinogradSpec(
        **given.common(1),
        weight_shape=weight.shape,
        weight_dtype=str(weight.dtype),
        multiplier=multiplier,
        offset=offset,
        instr=instr,
        tile=tile,
        middle=middle(max_level),
        made=made,
        codes=codes,
    )
    constant = multiplier * middle(max_level) * w8.sum((1, 2, 3), dtype=np.int64)
    table = None
    if isinstance(tile, ByteTile):
        table = np.zeros(spec.table_shape, np.int32)
        table[..., : part.q.shape[0]] = tile.excess(w8)
    return PackedPart(spec, weight, reach, grid_a.lo, constant, table)


def compute(tag: str, spec: WinogradSpec, data, weight, layer: LayerSpec, table=None) -> Expressed:
    """D0_1 [tile y, rows, tile x, columns, block, lane] after the stages before it (winograd_compute.py)."""
    name = f"D{tag}"
    stages = WinogradStages(
        spec,
        name,
        half=f"{name}_half",
        tiles=f"{name}_tiles",
        filters=f"{name}_filters" if spec.made else "",
        weights=f"{name}_weights" if spec.made else "",
        products=f"{name}_products",
        sums=f"{name}_sums",
    )
    size = layer.shape[1:]
    found = winograd_compute.compute(
        name, spec.tile, spec.middle, data, weight, table, *size, spec.origin, spec.made, spec.codes
    )
    return Expressed(stages, lambda y, x, o: winograd_compute.value(found, y, x, o))


def step(spec: WinogradSpec) -> str:
    rows, columns = spec.tile.outputs
    return f"{spec.instr.intrin.removeprefix('mpcompile.')} {rows}x{columns}"


def sums(part: ContractPart) -> bool:
    form = dot_form(part.grid)
    return form is not None and form[1] != 0


WINOGRAD = Family(
    name="winograd",
    reads="codes",
    cycles=cycles,
    describe=describe,
    compute=compute,
    step=step,
    sample=lambda tensor, channels, pads: sample(tensor, channels, pads, grids.twos_complement(8), kernel=KERNEL),
    sums=sums,
)
