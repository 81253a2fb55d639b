"""RNN, GRU and LSTM: one kernel of a loop over the steps. What the inputs give to the gates is one product for all steps;
in each step the state's product follows, then the gates in vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mpcompile.compiler.float_regions.contraction import Vectors
from mpcompile.compiler.float_regions.loops import Array, Index, Loops
from mpcompile.compiler.float_regions.product import product
from mpcompile.kernels.epilogue import f32
from mpcompile.kernels.tvm_names import PrimFunc, tirx

FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "Sigmoid": tirx.sigmoid,
    "Tanh": tirx.tanh,
    "Relu": lambda x: tirx.max(x, f32(0.0)),
}
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
DEFAULTS = {"RNN": ("Tanh",), "GRU": ("Sigmoid", "Tanh"), "LSTM": ("Sigmoid", "Tanh", "Tanh")}
"""ONNX's activations f, g, h."""


@dataclass(frozen=True)
class Recurrent:
    """A cell and its sizes. `functions`: names, those of each direction one after another. `reset_last`: GRU's
    linear_before_reset. `peepholes`: whether LSTM's gates see the cell."""

    cell: str
    steps: int
    batch: int
    inputs: int
    hidden: int
    reverse: tuple[bool, ...]
    functions: tuple[str, ...]
    reset_last: bool = False
    peepholes: bool = False

    @property
    def directions(self) -> int:
        return len(self.reverse)

    @property
    def gates(self) -> int:
        """Values of all gates of a state."""
        return GATES[self.cell] * self.hidden

    @property
    def state(self) -> tuple[int, int, int]:
        """The shape of the states at one time."""
        return self.directions, self.batch, self.hidden

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Of x, w and r with gates last, b, the first state, and for LSTM the first cell and the peepholes."""
        d, g = self.directions, self.gates
        shapes: list[tuple[int, ...]] = [(self.steps, self.batch, self.inputs), (d, self.inputs, g)]
        shapes += [(d, self.hidden, g), (d, 2 * g), self.state]
        if self.cell == "LSTM":
            shapes.append(self.state)
        return [*shapes, (d, 3 * self.hidden)] if self.peepholes else shapes

    @property
    def results(self) -> list[tuple[int, ...]]:
        """Of all states, the last one, and LSTM's last cell."""
        every = (self.steps, self.directions, self.batch, self.hidden)
        return [every, self.state, self.state] if self.cell == "LSTM" else [every, self.state]


def recurrent(of: Recurrent, vectors: Vectors) -> PrimFunc:
    """The kernel: `of.shapes` → `of.results`, as ONNX defines them, gates in ONNX's order."""
    do = Loops(vectors.lanes)

    def body(*arrays: Array) -> None:
        given, results = arrays[: len(of.shapes)], arrays[len(of.shapes) :]
        for direction in range(of.directions):
            _Direction(do, of, vectors, direction, given, results).write()

    return do.function([*of.shapes, *of.results], body)


class _Direction:
    """Writes one direction."""

    def __init__(
        self,
        do: Loops,
        of: Recurrent,
        vectors: Vectors,
        direction: int,
        given: Sequence[Array],
        results: Sequence[Array],
    ):
        self.do, self.of, self.vectors, self.direction = do, of, vectors, direction
        self.x, self.w, self.r, self.b, self.first = given[:5]
        self.first_cell = given[5] if of.cell == "LSTM" else None
        self.peep = given[6] if of.peepholes else None
        self.results = results
        each = len(of.functions) // of.directions
        self.functions = [FUNCTIONS[n] for n in of.functions[direction * each : (direction + 1) * each]]
        # Without a peephole, or a GRU's second product, all gates are one product.
        self.together = of.gates - (of.hidden if of.cell == "GRU" else 0)

    def write(self) -> None:
        do, of = self.do, self.of
        rows, gates, hidden = of.steps * of.batch, of.gates, of.hidden
        self.of_x, self.sums = do.local(rows * gates), do.local(of.batch * gates)
        self.state, self.cell = do.local(of.batch * hidden), do.local(of.batch * hidden)
        self.kept = do.local(of.batch * hidden)
        at = self.direction * of.batch * hidden
        do.fill(self.state, 0, of.batch * hidden, lambda i: self.first[at + i])
        if self.first_cell is not None:
            cell = self.first_cell
            do.fill(self.cell, 0, of.batch * hidden, lambda i: cell[at + i])
        product(
            do,
            self.vectors,
            (rows, of.inputs, gates),
            lambda row, k: self.x[row * of.inputs + k],
            lambda k, column: self.w[(self.direction * of.inputs + k) * gates + column],
            lambda row, column: self.b[self.direction * 2 * gates + column],
            lambda row, column, count, value: do.fill(self.of_x, row * gates + column, count, value),
            rows * of.inputs * gates,
        )
        with do.loop(of.steps) as turn:
            time = of.steps - 1 - turn if of.reverse[self.direction] else turn
            self._multiplied(self.state, 0, self.together, time)
            if of.cell == "GRU":
                self._gru(time)
            else:
                self._each(self._lstm if of.cell == "LSTM" else self._rnn)
            to = (time * of.directions + self.direction) * of.batch * hidden
            do.fill(self.results[0], to, of.batch * hidden, lambda i: self.state[i])
        do.fill(self.results[1], at, of.batch * hidden, lambda i: self.state[i])
        if of.cell == "LSTM":
            do.fill(self.results[2], at, of.batch * hidden, lambda i: self.cell[i])

    def _multiplied(self, state: Array, first: int, count: int, time: Index, alone: bool = False) -> None:
        """sums[first … first + count) = state · r + b of the state, and what the inputs give unless `alone`."""
        do, of, gates = self.do, self.of, self.of.gates
        bias = (2 * self.direction + 1) * gates + first

        def begin(row: Index, column: Index) -> Any:
            inside = self.b[bias + column]
            return inside if alone else self.of_x[(time * of.batch + row) * gates + first + column] + inside

        product(
            do,
            self.vectors,
            (of.batch, of.hidden, count),
            lambda row, k: state[row * of.hidden + k],
            lambda k, column: self.r[(self.direction * of.hidden + k) * gates + first + column],
            begin,
            lambda row, column, n, value: do.fill(self.sums, row * gates + first + column, n, value),
            0,
        )

    def _each(self, some: Callable[[Index, Index, Index], None]) -> None:
        """some(row, unit, number of both) of all states, in vectors."""
        with self.do.loop(self.of.batch) as row:

            def lanes(at: Index, count: int) -> None:
                with self.do.lanes(count) as lane:
                    some(row, at + lane, row * self.of.hidden + at + lane)

            self.do.each(self.of.hidden, self.do.width, lanes)

    def _gate(self, row: Index, number: int, unit: Index) -> Any:
        return self.sums[row * self.of.gates + number * self.of.hidden + unit]

    def _rnn(self, row: Index, unit: Index, at: Index) -> None:
        self.do.store(self.state, at, self.functions[0](self._gate(row, 0, unit)))

    def _gru(self, time: Index) -> None:
        f, g = self.functions
        hidden, of = self.of.hidden, self.of

        def reset(row: Index, unit: Index, at: Index) -> None:
            self.do.store(self.kept, at, f(self._gate(row, 1, unit)) * self.state[at])

        if of.reset_last:
            self._multiplied(self.state, 2 * hidden, hidden, time, alone=True)
        else:
            self._each(reset)
            self._multiplied(self.kept, 2 * hidden, hidden, time)

        def update(row: Index, unit: Index, at: Index) -> None:
            candidate = self._gate(row, 2, unit)
            if of.reset_last:
                given = self.of_x[(time * of.batch + row) * of.gates + 2 * hidden + unit]
                candidate = f(self._gate(row, 1, unit)) * candidate + given
            keep = tirx.Var("keep", "float32")
            new = g(candidate) * (f32(1.0) - keep) + keep * self.state[at]
            self.do.store(self.state, at, tirx.Let(keep, f(self._gate(row, 0, unit)), new))

        self._each(update)

    def _lstm(self, row: Index, unit: Index, at: Index) -> None:
        f, g, h = self.functions

        def gate(number: int, peephole: int) -> Any:
            value = self._gate(row, number, unit)
            if self.peep is None:
                return value
            place = (self.direction * 3 + peephole) * self.of.hidden + unit
            return value + self.peep[place] * self.cell[at]

        entering = f(gate(0, 0)) * g(self._gate(row, 3, unit))
        self.do.store(self.cell, at, f(gate(2, 2)) * self.cell[at] + entering)
        self.do.store(self.state, at, f(gate(1, 1)) * h(self.cell[at]))
