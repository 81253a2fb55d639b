"""Micro-kernels for 64-bit ARM cores on which the order of instructions decides: the reduction of a small tile as one
block of assembly, in the order in which it is written here.

LLVM's own code reached 0.75 (popcount) and 0.61 (dot) of what a Cortex-A53 can do, and 0.82 (dot) on a Cortex-A76: it
starts chains before their loads are there, or spills. One iteration takes `unroll` steps of the reduction:

    popcount  acc u16 += popcount(w & a)       AND, CNT, UADALP           a step is 4 bytes, 32 channels
    mla       sum s8 += w·a, then acc s16      MUL or MLA; SADALP         a step is 4 channels
    smlal     sum s16 += w·a, then acc s32     SMULL, SMLAL; SADALP       a step is 2 channels
    sdot      acc s32 += w·a                   SDOT by element            a step is 4 channels
    tbl2      acc u16 += a[w]                  TBL of two registers, UADALP    a step is two tables, 8 channels
    tbl1      sum u8 += a[w], then acc u16     TBL, ADD; UADDW                 a step is a table, 4 channels

tbl2 adds entries of the first table and of the second one in pairs, so 8 bits never fill: weights index both at once.
Eight chains go side by side, since an in-order core takes 6 cycles to hand a vector on. Operands are loaded as soon as
their registers are free, those of the next iteration at the end of this one; the last iteration loads its own once
more, so that nothing is read that is not there. LD1 of four registers and LD4R start together with arithmetic; in LLVM's
model of the A53 shorter loads do not, nor additions of addresses, which therefore stand together.

Registers: x0 c, x1 and x2 its bytes to the next pixel and block; x3 a, x4 and x5 its bytes to the next column and row;
x6 w. x7 rows, x8 taps, x9 iterations that are left; x10 and x11 what is added to a after a tap and a row; then addresses.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from mpcompile.kernels.tvm_names import T, TensorIntrin, from_source

BLOCK = 16
"""Output channels whose weights lie together: four vectors of 32-bit lanes."""

BYTES = {"popcount": 4, "mla": 4, "smlal": 2, "sdot": 4, "tbl2": 32, "tbl1": 16}
"""Of an activation, or of tables of it, that a step takes, one after the other, for each output channel."""

WEIGHT_BYTES = {**BYTES, "tbl2": 2, "tbl1": 1}
"""Of an output channel's weights that a step takes."""

LOOKUPS = {"tbl2", "tbl1"}
"""Those that add in 16-bit lanes of one channel each."""

CHAINS = 8
LOAD_EVERY = 4
"""Instructions from one load to the next: LD1 of four registers takes as many cycles."""

_ADDRESSES = [*range(12, 18), *range(20, 29)]  # x18 is the platform's, x19 LLVM's base pointer


@dataclass(frozen=True)
class Micro:
    """A tile of `pixels` × `blocks`·16 channels. `run`: so many steps mla, smlal and tbl1 add in narrow lanes; it
    divides `unroll`. The other kinds have none (0). Sums of `run` steps, and in the 16 bits of popcount, mla and
    look-ups all steps, must fit: their caller proves it."""

    kind: str
    pixels: int
    blocks: int
    unroll: int
    run: int = 0


TILES = {
    "popcount": ((2, 2), (1, 2), (2, 1), (1, 1)),
    "mla": ((2, 1), (1, 1)),
    "smlal": ((2, 1), (1, 2), (1, 1)),
    "sdot": ((4, 1), (2, 2), (1, 2), (2, 1), (1, 1)),
    "tbl2": ((4, 2), (3, 2), (2, 3), (2, 2), (4, 1), (1, 4), (3, 1), (1, 3), (2, 1), (1, 2), (1, 1)),
    "tbl1": ((2, 2), (1, 3), (1, 2), (3, 1), (2, 1), (1, 1)),
}
"""(pixels, blocks), best first."""

_UNROLL = {"popcount": 4, "mla": 8, "smlal": 8, "sdot": 4, "tbl2": 2, "tbl1": 4}


def choose(kind: str, pixels: int, blocks: int, steps: int, run: int = 0) -> Micro:
    """The best micro-kernel whose tile divides pixels × blocks and whose iterations divide a tap's `steps`; sums of up
    to `run` steps fit narrow lanes."""
    p, b = next((p, b) for p, b in TILES[kind] if pixels % p == 0 and blocks % b == 0)
    unroll = max(n for n in (1, 2, 4, 8) if steps % n == 0 and n <= _UNROLL[kind])
    return Micro(kind, p, b, unroll, max(n for n in (1, 2, 4, 8) if n <= min(run, unroll)) if run else 0)


@dataclass(frozen=True)
class Window:
    """The reduction: rows, columns, and bytes of a tap; what is between neighbouring pixels and taps, in columns (x) or
    rows (y); bytes from a block of weights to the next."""

    kernel: tuple[int, int]
    depth: int
    stride: int
    dilations: tuple[int, int]
    weight_block: int


@dataclass(frozen=True)
class _Load:
    """Instruction `text` fills the registers of `slot` with `value`: (a or w, pixel or block, offset in bytes)."""

    text: str
    slot: tuple
    value: tuple


class Iteration:
    """Registers, arithmetic and loads of one iteration, in order."""

    def __init__(self, micro: Micro):
        self.micro, self.used = micro, 0
        self.addresses: dict[tuple[str, int, int], str] = {}  # (a or w, pixel or block, offset) → register
        self.acc = [self.take((2 if micro.kind in LOOKUPS else 4) * micro.blocks) for _ in range(micro.pixels)]
        self.arithmetic: list[tuple[str, set]] = []  # instruction, values it reads
        self.loads: list[_Load] = []
        getattr(self, f"_{micro.kind}")()

    def take(self, n: int) -> list[int]:
        self.used += n
        assert self.used <= 32, f"{self.micro}: too many registers"
        return list(range(self.used - n, self.used))

    def at(self, base: str, unit: int, offset: int) -> str:
        key = base, unit, offset
        if key not in self.addresses:
            self.addresses[key] = f"x{_ADDRESSES[len(self.addresses)]}"
        return self.addresses[key]

    def load(self, form: str, regs: list[int], size: str, base: str, unit: int, offset: int, slot: tuple) -> tuple:
        """Notes a load; the value's name."""
        names = ", ".join(f"v{r}.{size}" for r in regs)
        value = (base, unit, offset)
        operand = f"{{{names}}}" if form != "ldr" else f"{size}{regs[0]}"
        self.loads.append(_Load(f"{form} {operand}, [{self.at(*value)}]", slot, value))
        return value

    def weights(self, most: int, count: int) -> list[list[int]]:
        """Sets of four registers for the `count` loads of 64 bytes of weights of an iteration, which take turns."""
        return [self.take(4) for _ in range(max(n for n in range(1, most + 1) if count % n == 0))]

    def broadcast(self, form: str, regs: list[int], size: str, pixel: int, step: int, steps: int) -> tuple:
        """The value that holds a pixel's bytes of `step`; one load serves so many steps."""
        first = BYTES[self.micro.kind] * (step - step % steps)
        value = "a", pixel, first
        return (
            value
            if any(load.value == value for load in self.loads)
            else self.load(form, regs, size, *value, ("a", pixel))
        )

    # -- kinds -----------------------------------------------------------------------------------
    def _popcount(self):
        m = self.micro
        turns = [(step, b) for step in range(m.unroll) for b in range(m.blocks)]
        together = min(CHAINS // (4 * m.pixels), len(turns))
        temps, sets = self.take(CHAINS), self.weights(together, len(turns))
        spread = [self.take(min(m.unroll, 4 if m.pixels == 1 else 2)) for _ in range(m.pixels)]
        for first in range(0, len(turns), together):
            free, chains = iter(temps), []
            for turn in range(first, first + together):
                step, b = turns[turn]
                w = sets[turn % len(sets)]
                reads = {self.load("ld1", w, "16b", "w", b, 64 * step, ("w", turn % len(sets)))}
                for p, x in enumerate(spread):
                    both = reads | {self.broadcast(f"ld{len(x)}r", x, "4s", p, step, len(x))}
                    for v, t in zip(range(4), free):
                        chains.append(
                            [
                                (f"and v{t}.16b, v{w[v]}.16b, v{x[step % len(x)]}.16b", both),
                                (f"cnt v{t}.16b, v{t}.16b", set()),
                                (f"uadalp v{self.acc[p][4 * b + v]}.8h, v{t}.16b", set()),
                            ]
                        )
            self.arithmetic += [chain[n] for n in range(3) for chain in chains]

    def _mla(self):
        self._narrow(64, "4s", lambda step, v: ("mul" if step % self.micro.run == 0 else "mla", "16b", v, "16b"), "8h")

    def _smlal(self):
        def instruction(step, v):
            op, high = "smull" if step % self.micro.run == 0 else "smlal", v % 2
            return f"{op}2" if high else op, "8h", step % 2 * 2 + v // 2, "16b" if high else "8b"

        self._narrow(32, "8h", instruction, "4s")

    def _narrow(self, size: int, spread_size: str, instruction, wide: str):
        """Sums in narrow lanes, widened after `run` steps; a step of a block has `size` bytes of weights."""
        m = self.micro
        sums = [self.take(4 * m.blocks) for _ in range(m.pixels)]
        spread = [self.take(min(4, m.unroll)) for _ in range(m.pixels)]
        sets = self.weights(2, m.unroll * size // 64 * m.blocks)
        for step in range(m.unroll):
            for b in range(m.blocks):
                turn = step * size // 64 * m.blocks + b
                w, value = sets[turn % len(sets)], ("w", b, step * size // 64 * 64)
                if step * size % 64 == 0:
                    self.load("ld1", w, "16b", *value, ("w", turn % len(sets)))
                for p, x in enumerate(spread):
                    reads = {value, self.broadcast(f"ld{len(x)}r", x, spread_size, p, step, len(x))}
                    for v in range(4):
                        op, lanes, register, taken = instruction(step, v)
                        self.arithmetic.append(
                            (
                                f"{op} v{sums[p][4 * b + v]}.{lanes}, v{w[register]}.{taken}, "
                                f"v{x[step % len(x)]}.{taken}",
                                reads,
                            )
                        )
                        narrow = lanes
            if (step + 1) % m.run == 0:
                self.arithmetic += [
                    (f"sadalp v{acc}.{wide}, v{t}.{narrow}", set())
                    for row, own in zip(self.acc, sums)
                    for acc, t in zip(row, own)
                ]

    def _sdot(self):
        m = self.micro
        spread, size = [self.take(1) for _ in range(m.pixels)], {1: "s", 2: "d", 4: "q"}[m.unroll]
        turns = [(step, b) for step in range(m.unroll) for b in range(m.blocks)]
        sets = self.weights(2, len(turns))
        for turn, (step, b) in enumerate(turns):
            w = sets[turn % len(sets)]
            reads = {self.load("ld1", w, "16b", "w", b, 64 * step, ("w", turn % len(sets)))}
            for p, x in enumerate(spread):
                both = reads | {self.broadcast("ldr", x, size, p, step, m.unroll)}
                self.arithmetic += [
                    (f"sdot v{self.acc[p][4 * b + v]}.4s, v{w[v]}.16b, v{x[0]}.4b[{step % 4}]", both) for v in range(4)
                ]

    def _tbl2(self):
        """A pixel's two tables serve all blocks; then come the next pixel's."""
        m = self.micro
        turns, chains = [(step, p) for step in range(m.unroll) for p in range(m.pixels)], []
        room = (32 - self.used - CHAINS) // 2  # pairs of registers
        weights = [self.pairs(m.unroll if room >= 2 * m.blocks + 2 else 1) for _ in range(m.blocks)]
        room -= sum(map(len, weights))
        tables = self.pairs(max(n for n in (1, 2, 4) if n <= max(room, 1) and len(turns) % n == 0))
        temps = self.take(CHAINS)
        for turn, (step, p) in enumerate(turns):
            x = tables[turn % len(tables)]
            reads = {self.load("ld1", x, "16b", "a", p, 32 * step, ("a", turn % len(tables)))}
            for b, pairs in enumerate(weights):
                w, value = pairs[step % len(pairs)], ("w", b, 32 * step)
                if p == 0:
                    self.load("ld1", w, "16b", *value, ("w", b, step % len(pairs)))
                chains += [
                    (f"{{v{x[0]}.16b, v{x[1]}.16b}}, v{w[v]}.16b", self.acc[p][2 * b + v], reads | {value})
                    for v in range(2)
                ]
        for first in range(0, len(chains), CHAINS):
            part = list(zip(temps, chains[first : first + CHAINS]))
            self.arithmetic += [(f"tbl v{t}.16b, {found}", reads) for t, (found, _, reads) in part]
            self.arithmetic += [(f"uadalp v{acc}.8h, v{t}.16b", set()) for t, (_, acc, _) in part]

    def pairs(self, n: int) -> list[list[int]]:
        return [self.take(2) for _ in range(n)]

    def _tbl1(self):
        """Each step's entries are added in 8 bits, `run` of them before they are widened. A load is of all steps."""
        m = self.micro
        sums, (spread, weights) = (
            [self.take(m.blocks) for _ in range(m.pixels)],
            ([self.take(m.unroll) for _ in range(n)] for n in (m.pixels, m.blocks)),
        )
        temps, used = self.take(min(CHAINS, 32 - self.used)), 0
        for step in range(m.unroll):
            first, last = step % m.run == 0, (step + 1) % m.run == 0
            for p, (row, x) in enumerate(zip(sums, spread)):
                a = self.broadcast("ld1", x, "16b", p, step, m.unroll)
                taken = row if first else [temps[(used + b) % len(temps)] for b in range(m.blocks)]
                used += 0 if first else m.blocks
                for b, (w, t) in enumerate(zip(weights, taken)):
                    value = "w", b, 0
                    if step == p == 0:
                        self.load("ld1", w, "16b", *value, ("w", b))
                    self.arithmetic.append((f"tbl v{t}.16b, {{v{x[step]}.16b}}, v{w[step]}.16b", {a, value}))
                if not first:
                    self.arithmetic += [(f"add v{r}.16b, v{r}.16b, v{t}.16b", set()) for r, t in zip(row, taken)]
                if last:
                    self.arithmetic += [
                        (f"uaddw{half} v{acc}.8h, v{acc}.8h, v{r}.{lanes}", set())
                        for b, r in enumerate(row)
                        for acc, half, lanes in zip(self.acc[p][2 * b : 2 * b + 2], ("", "2"), ("8b", "16b"))
                    ]

    # -- order -----------------------------------------------------------------------------------
    def first_loads(self) -> list[str]:
        """Those of the first value of each slot, with which an iteration begins."""
        return [self.loads[i].text for i in self._firsts()]

    def _firsts(self) -> list[int]:
        slots = [load.slot for load in self.loads]
        return [slots.index(slot) for slot in dict.fromkeys(slots)]

    def ordered(self, advance: list[str]) -> list[str]:
        """The iteration with its loads; `advance` stands before the first load of the next iteration.

        A load comes after the last use of what its registers held, and LOAD_EVERY instructions after another.
        """
        last = {value: i for i, (_, reads) in enumerate(self.arithmetic) for value in reads}
        use = {value: i for i, (_, reads) in reversed(list(enumerate(self.arithmetic))) for value in reads}
        firsts, end = self._firsts(), len(self.arithmetic)
        waiting = []  # used at, free from, text
        for i, load in enumerate(self.loads):
            same = [n for n, other in enumerate(self.loads) if other.slot == load.slot]
            former = self.loads[same[same.index(i) - 1]].value  # of the first: the last one of the iteration before
            waiting.append((use[load.value] + end * (i in firsts), last[former], load.text))
        waiting.sort()
        found, since, advanced = [], LOAD_EVERY, False
        for i, (text, _) in enumerate(self.arithmetic):
            assert not waiting or waiting[0][0] > i, f"{self.micro}: {waiting[0][2]} comes too late"
            found.append(text)
            since += 1
            while waiting and waiting[0][1] <= i and (since >= LOAD_EVERY or waiting[0][0] == i + 1 or i == end - 1):
                at, _, load = waiting.pop(0)
                if at >= end and not advanced:
                    found, advanced = found + advance, True
                found, since = [*found, load], 0
        return found


# -- the whole reduction ---------------------------------------------------------------------------


def assembly(micro: Micro, window: Window) -> list[str]:
    """c[pixel, block·16 + lane] int32 += the reduction over the window. Labels end in ${:uid}, as LLVM numbers them."""
    iteration = Iteration(micro)
    (rows, taps), bytes_, step = window.kernel, window.depth, BYTES[micro.kind] * micro.unroll
    weights = BLOCK * WEIGHT_BYTES[micro.kind] * micro.unroll
    a = [r for (base, *_), r in iteration.addresses.items() if base == "a"]
    w = [r for (base, *_), r in iteration.addresses.items() if base == "w"]
    loop, on, tap, done = (f".Lmp_{name}${{:uid}}" for name in ("loop", "on", "tap", "done"))
    code = []
    for row in iteration.acc:
        code += [f"movi v{r}.2d, #0" for r in row]
    # x10, x11: to the next tap from behind a tap's last byte, to the next row from behind a row's last tap
    code += [
        f"mov x7, #{window.dilations[1]}",
        "mul x10, x4, x7",
        f"mov x8, #{taps}",
        "mul x8, x10, x8",
        f"mov x7, #{window.dilations[0]}",
        "mul x11, x5, x7",
        "sub x11, x11, x8",
        *_number("x8", bytes_),
        "sub x10, x10, x8",
        f"mov x7, #{window.stride}",
        "mul x4, x4, x7",
    ]
    for (base, unit, offset), register in iteration.addresses.items():
        if base == "a":
            code += [f"add {register}, x3, #{offset}", *[f"add {register}, {register}, x4"] * unit]
        else:
            code += [*_number("x7", unit * window.weight_block + offset), f"add {register}, x6, x7"]
    code += [
        f"mov x7, #{rows}",
        f"mov x8, #{taps}",
        *_number("x9", bytes_ // step),
        *iteration.first_loads(),
        f"{loop}:",
    ]
    advance = [
        "subs x9, x9, #1",
        f"b.eq {tap}",
        f"{on}:",
        *[f"add {r}, {r}, #{step}" for r in a],
        *[f"add {r}, {r}, #{weights}" for r in w],
    ]
    code += [*iteration.ordered(advance), f"cbnz x7, {loop}", f"b {done}"]
    code += [
        f"{tap}:",
        *_number("x9", bytes_ // step),
        *[f"add {r}, {r}, x10" for r in a],
        "subs x8, x8, #1",
        f"b.ne {on}",
        f"mov x8, #{taps}",
        *[f"add {r}, {r}, x11" for r in a],
        "subs x7, x7, #1",
        f"b.ne {on}",
    ]
    code += [f"sub {r}, {r}, #{step}" for r in a] + [f"sub {r}, {r}, #{weights}" for r in w]
    code += [f"sub {r}, {r}, x{jump}" for r in a for jump in (10, 11)] + [f"b {on}", f"{done}:"]
    return code + _store(micro, iteration)


def _number(register: str, value: int) -> list[str]:
    """register = value, below 2^32."""
    assert 0 <= value < 1 << 32
    high = [f"movk {register}, #{value >> 16}, lsl #16"] if value >> 16 else []
    return [f"mov {register}, #{value & 0xFFFF}", *high]


def _store(micro: Micro, iteration: Iteration) -> list[str]:
    """c += the accumulators, of 16-bit lanes in pairs."""
    code, spare = [], [f"v{r}" for r in range(iteration.used - 4, iteration.used)]
    for row in iteration.acc:
        code += ["mov x7, x0"]
        for b in range(micro.blocks):
            names = [s.replace("v", "q") for s in spare]
            code += [f"ldp {names[0]}, {names[1]}, [x7]", f"ldp {names[2]}, {names[3]}, [x7, #32]"]
            if micro.kind in LOOKUPS:
                code += [
                    f"uaddw{half} {t}.4s, {t}.4s, v{r}.{lanes}"
                    for t, r, half, lanes in zip(
                        spare, (row[2 * b + v // 2] for v in range(4)), ("", "2") * 2, ("4h", "8h") * 2
                    )
                ]
            else:
                for t, r in zip(spare, row[4 * b : 4 * b + 4]):
                    code.append(
                        {"popcount": f"uadalp {t}.4s, v{r}.8h", "mla": f"sadalp {t}.4s, v{r}.8h"}.get(
                            micro.kind, f"add {t}.4s, {t}.4s, v{r}.4s"
                        )
                    )
            code += [f"stp {names[0]}, {names[1]}, [x7]", f"stp {names[2]}, {names[3]}, [x7, #32]", "add x7, x7, x2"]
        code.append("add x0, x0, x1")
    return code


def llvm_function(name: str, micro: Micro, window: Window) -> str:
    """LLVM's text of the function that the assembly is put in wherever it is called."""
    text = "".join(f"{line}\\0A" for line in assembly(micro, window))
    own = ", ".join(["ptr %c", "i64 %cp", "i64 %cb", "ptr %a", "i64 %col", "i64 %row", "ptr %w"])
    kinds = ["ptr", "i64", "i64", "ptr", "i64", "i64", "ptr"]
    changed = [f"={{x{n}}}" for n in range(7)] + [str(n) for n in range(7)]
    gone = [f"~{{x{n}}}" for n in (*range(7, 12), *_ADDRESSES)] + [f"~{{v{n}}}" for n in range(32)]
    constraints = ",".join([*changed, *gone, "~{nzcv}", "~{memory}"])
    return (
        f"define i32 @{name}({own}) alwaysinline {{\n"
        f'  %r = call {{{", ".join(kinds)}}} asm sideeffect "{text}", "{constraints}"({own})\n'
        f"  ret i32 0\n}}\n"
    )


def intrinsic(micro: Micro, window: Window, dtypes: tuple[str, str], planes: bool) -> str:
    """Registers the tensor intrinsic of a reduction, and gives its name.

    dtypes: of activations and weights. It stands for the loops (kh, kw, step, pixel, block, lane, byte), in this order,
    and of a look-up (…, table, entry). `planes`: activations have an axis of planes (or digits), weights of planes
    after that of blocks, accumulators of pairs of these; one of each is taken.
    """
    name = "mpcompile_" + hashlib.sha256(repr((micro, window, dtypes, planes)).encode()).hexdigest()[:16]
    TensorIntrin.register(name, *_tensor_intrinsic(name, micro, window, dtypes, planes), override=True)
    return name


def _tensor_intrinsic(name: str, micro: Micro, window: Window, dtypes: tuple[str, str], planes: bool):
    (rows, taps), group, (dy, dx) = window.kernel, WEIGHT_BYTES[micro.kind], window.dilations
    bytes_, look_up = BYTES[micro.kind], micro.kind in LOOKUPS
    steps, one, zero = window.depth // bytes_, (1,) * planes, (0,) * planes
    width = (micro.pixels - 1) * window.stride + (taps - 1) * dx + 1
    shapes = {
        "A": ((rows - 1) * dy + 1, width, *one, window.depth),
        "W": (micro.blocks, *one, rows, taps, steps, BLOCK, group),
        "C": (1, micro.pixels, micro.blocks, *one, *one, BLOCK),
    }
    # TVM keeps loops of one step, but no axis of a block
    extents = {
        "kh": rows,
        "kw": taps,
        "s": steps,
        "p": micro.pixels,
        "b": micro.blocks,
        "lane": BLOCK,
        "k": group,
        **({"e": bytes_} if look_up else {}),
    }
    loops = [axis for axis in ("p", "b", "lane", "kh", "kw", "s", "k", "e") if extents.get(axis, 0) > 1]
    kh, kw, s, p, b, lane, k, *e = (f"v_{axis}" if axis in loops else 0 for axis in extents)
    at = lambda name, *index: f"{name}[{', '.join(map(str, index))}]"
    a = at("A", f"{kh} * {dy}", f"{p} * {window.stride} + {kw} * {dx}", *zero, f"{s} * {bytes_} + {(e or [k])[0]}")
    w, c = at("W", b, *zero, kh, kw, s, lane, k), at("C", 0, p, b, *zero, *zero, lane)
    product = (
        f"T.cast(T.Select({w} == T.cast({e[0]}, 'uint8'), {a}, T.uint8(0)), 'int32')"
        if look_up
        else f"T.cast(T.popcount({a} & {w}), 'int32')"
        if planes
        else f"T.cast({a}, 'int32') * T.cast({w}, 'int32')"
    )
    whole = {n: at(n, *(f"0:{extent}" for extent in shape)) for n, shape in shapes.items()}
    head = ["@T.prim_func(s_tir=True)", "def main(a: T.handle, w: T.handle, c: T.handle):"]
    for n, dtype, scope in (("A", dtypes[0], "global"), ("W", dtypes[1], "global"), ("C", "int32", "local")):
        strides = [f"{n}{i}" for i in range(len(shapes[n]))]
        head += [f" {stride} = T.int32()" for stride in strides]
        head.append(
            f" {n} = T.match_buffer({n.lower()}, {shapes[n]}, '{dtype}', offset_factor=1, scope='{scope}', "
            f"strides=[{', '.join(strides)}])"
        )
    operands = ("C", "W", "A") if look_up else ("C", "A", "W")  # as they come in the product
    head += [
        " with T.sblock('root'):",
        f"  T.reads({', '.join(whole[n] for n in operands)})",
        f"  T.writes({whole['C']})",
    ]
    kinds = "".join("S" if axis in ("p", "b", "lane") else "R" for axis in loops)
    description = [
        *head,
        f"  for {', '.join(extents)} in T.grid({', '.join(map(str, extents.values()))}):",
        "   with T.sblock('update'):",
        f"    {', '.join(f'v_{axis}' for axis in loops)} = T.axis.remap('{kinds}', [{', '.join(loops)}])",
        f"    {c} = {c} + {product}",
    ]
    first = {n: f"T.address_of({at(n, *[0] * len(shape))})" for n, shape in shapes.items()}
    bytes_of = lambda stride: f"T.cast({stride}, 'int64')"
    implementation = [
        *head,
        "  with T.attr(T.int32(0), 'pragma_import_llvm', CODE):",
        f"   T.evaluate(T.call_extern('int32', '{name}', {first['C']}, {bytes_of('C1 * 4')}, "
        f"{bytes_of('C2 * 4')}, {first['A']}, {bytes_of('A1')}, {bytes_of('A0')}, {first['W']}))",
    ]
    known = {"T": T, "CODE": llvm_function(name, micro, window)}
    return tuple(from_source("\n".join(text), extra_vars=known) for text in (description, implementation))
