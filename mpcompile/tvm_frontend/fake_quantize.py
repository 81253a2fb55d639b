"""Fake quantization in float, as exporters of PyTorch leave it: divide, round, clip, multiply, with a zero point or none.

    s·(clip(round(x/s) + z, lo, hi) − z)      also with the clip in front of the round, or the zero point inside it; a clip
                                              may be a maximum and a minimum

The last operator of such a chain becomes one quantizer, call `fake_quantize` with inputs (x, scale, zero) and attributes
low, high and zero_first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mpcompile.tvm_frontend.dataflow import Call, Dataflow, Value, scalar


@dataclass
class _Chain:
    """What is known of a value on the way back from the multiplication: operators found so far, the last one first."""

    value: Value
    scale: np.ndarray
    zero: float = 0.0
    low: float = -np.inf
    high: float = np.inf
    rounded: bool = False
    added: float | None = None
    zero_first: bool = False


def merge(flow: Dataflow) -> None:
    """Replaces, in place, the last call of each chain by a fake_quantize; calls of the chain that nothing else reads are
    absorbed by it, and leave the list."""
    before = {call: list(call.inputs) for call in flow.calls}
    made = [
        call for call in flow.calls if call.op == "multiply" and (found := chain_of(call)) and _replace(call, found)
    ]
    readers = flow.consumers()
    gone: set[Call] = set()
    for call in made:
        waiting = list(before[call])
        while waiting:
            at = waiting.pop().call
            if at is None or at in gone or at is call or any(v in flow.results for v in at.outputs):
                continue
            if all(reader in gone for v in at.outputs for reader in readers.get(v, [])):
                gone.add(at)
                call.absorbed.append(at)
                waiting += at.inputs
    flow.calls = [call for call in flow.calls if call not in gone]


def chain_of(call: Call) -> _Chain | None:
    """The chain that ends in this multiplication by a constant; None where it is none."""
    codes, scale = _with_constant(call)
    if codes is None or scale is None or (scale <= 0).any() or call.output.dtype != "float32":
        return None
    chain = _Chain(codes, scale)
    while chain.value.call is not None:
        at = chain.value.call
        if at.op in ("divide", "multiply") and chain.rounded:
            return _first(at, chain)
        if not _step(at, chain):
            return None
    return None


def _step(at: Call, chain: _Chain) -> bool:
    """Takes one operator between the first and the last into the chain; False where it does not belong."""
    if at.op == "round" and not chain.rounded:
        chain.rounded = True
    elif at.op == "clip" and not np.isfinite([chain.low, chain.high]).any():
        chain.low, chain.high = float(at.attrs["min"]), float(at.attrs["max"])
    elif at.op in ("maximum", "minimum"):
        other, bound = _with_constant(at)
        name = "low" if at.op == "maximum" else "high"
        if other is None or bound is None or (bound != bound.flat[0]).any() or np.isfinite(getattr(chain, name)):
            return False
        setattr(chain, name, float(bound.flat[0]))
        chain.value = other
        return True
    elif (
        at.op == "subtract" and not chain.rounded and not np.isfinite([chain.low, chain.high]).any() and not chain.zero
    ):
        other, zero = at.inputs[0], scalar(at.inputs[1])
        if zero is None:
            return False
        chain.zero, chain.value = zero, other
        return True
    elif at.op == "add" and chain.added is None and np.isfinite(chain.high):
        other, zero = _with_constant(at)
        if other is None or zero is None or zero.size != 1 or float(zero.flat[0]) != chain.zero:
            return False
        chain.added, chain.zero_first, chain.value = chain.zero, chain.rounded, other
        return True
    else:
        return False
    chain.value = at.inputs[0]
    return True


def _first(at: Call, chain: _Chain) -> _Chain | None:
    """The chain with its input, where its first operator divides by the scale that the last multiplies with."""
    if at.op == "divide":
        x, divisor = at.inputs[0], at.inputs[1].array
        same = divisor is not None and np.array_equal(np.broadcast_to(divisor, chain.scale.shape), chain.scale)
    else:
        x, factor = _with_constant(at)
        same = factor is not None and np.array_equal(
            (np.float32(1) / chain.scale.astype(np.float32)), np.broadcast_to(factor, chain.scale.shape)
        )
        # x·(1/s) is x/s only where 1/s is exact
        same = same and np.array_equal(np.exp2(np.rint(np.log2(chain.scale))), chain.scale)
    whole = all(np.isfinite(b) and b == int(b) for b in (chain.low, chain.high))
    if x is None or not same or not whole or (chain.added or 0.0) != chain.zero:
        return None
    chain.value = x
    return chain


def _with_constant(call: Call) -> tuple[Value | None, np.ndarray | None]:
    """(the other input, the constant's array) of a call of two inputs, one of which is a constant."""
    if len(call.inputs) != 2:
        return None, None
    a, b = call.inputs
    if b.array is not None:
        return a, b.array
    return (b, a.array) if a.array is not None else (None, None)


def _replace(call: Call, chain: _Chain) -> bool:
    zero = np.array(chain.zero, np.float32)
    constants = [Value(a.shape, "float32", a) for a in (chain.scale.astype(np.float32), zero)]
    call.op, call.inputs = "fake_quantize", [chain.value, *constants]
    call.attrs = {"low": int(chain.low), "high": int(chain.high), "zero_first": chain.zero_first}
    return True
