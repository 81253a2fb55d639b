"""Σ_i p_i·Q_{b_i}(x) for all candidate bitwidths in one pass, forward and backward.

    Q_b(x) = round(n·x)/n,  n = 2^b − 1,  x in 0..1, halves to even

Autograd's own composition would keep every candidate's tensor for the backward pass. Here only x is kept, and the
candidates are computed again, a piece at a time so that a piece stays in the cache. The gradient passes straight
through the rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

PIECE = 1 << 15
"""Elements of a piece: a few float32 buffers of this size fit into a core's L2 cache."""


def levels(bits: int) -> int:
    """n: how many steps a b-bit quantizer makes between 0 and 1."""
    return (1 << bits) - 1


def _pieces(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The tensors, flattened in one common order of memory, piece by piece."""
    flat = [t.reshape(-1) for t in tensors]
    for at in range(0, flat[0].numel(), PIECE):
        yield tuple(t[at : at + PIECE] for t in flat)


def _like(x: Tensor, g: Tensor) -> Tensor:
    """g, contiguous as x is."""
    return g.contiguous(memory_format=torch.channels_last) if _last(x) else g.contiguous()


def _last(x: Tensor) -> bool:
    return x.dim() == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)


def _flat(x: Tensor) -> Tensor:
    """x as a vector over its memory, without a copy where it is contiguous in either format."""
    return x.permute(0, 2, 3, 1).reshape(-1) if _last(x) else x.reshape(-1)


class UnitMixture(torch.autograd.Function):
    """x in 0..1 (any shape), probs [B], bits (B of them) → Σ_i p_i·Q_{b_i}(x), x's shape.

    Gradients: to x straight through, g·Σp; to probs <g, Q_{b_i}(x)>.
    """

    @staticmethod
    def forward(ctx, x: Tensor, probs: Tensor, bits: Sequence[int]) -> Tensor:
        ctx.save_for_backward(x, probs)
        ctx.bits = tuple(bits)
        result = torch.empty_like(x)
        shares = [p / levels(b) for p, b in zip(probs.tolist(), ctx.bits)]
        for piece, out in _pieces(_flat(x), _flat(result)):
            _mix(piece, shares, [levels(b) for b in ctx.bits], out)
        return result

    @staticmethod
    def backward(ctx, g: Tensor):
        x, probs = ctx.saved_tensors
        to_x = g * probs.sum() if ctx.needs_input_grad[0] else None
        to_probs = None
        if ctx.needs_input_grad[1]:
            steps = [levels(b) for b in ctx.bits]
            found = [0.0] * len(steps)
            for piece, grad in _pieces(_flat(x), _flat(_like(x, g))):
                _inner(piece, grad, steps, found)
            to_probs = torch.tensor([f / n for f, n in zip(found, steps)], dtype=probs.dtype)
        return to_x, to_probs, None


class ClippedMixture(torch.autograd.Function):
    """PACT's: x (any shape), alpha (scalar > 0), probs [B], bits → α·Σ_i p_i·Q_{b_i}(clip(x, 0, α)/α).

    Gradients: to x inside 0..α, straight through; to alpha the sum of g where x ≥ α; to probs <g, each candidate>.
    """

    @staticmethod
    def forward(ctx, x: Tensor, alpha: Tensor, probs: Tensor, bits: Sequence[int]) -> Tensor:
        ctx.save_for_backward(x, alpha, probs)
        ctx.bits = tuple(bits)
        result, top = torch.empty_like(x), alpha.item()
        shares = [p * top / levels(b) for p, b in zip(probs.tolist(), ctx.bits)]
        steps = [levels(b) / top for b in ctx.bits]
        clipped = x.new_empty(min(PIECE, x.numel()))
        for piece, out in _pieces(_flat(x), _flat(result)):
            inside = clipped[: piece.numel()]
            torch.clamp(piece, 0.0, top, out=inside)
            _mix(inside, shares, steps, out)
        return result

    @staticmethod
    def backward(ctx, g: Tensor):
        x, alpha, probs = ctx.saved_tensors
        top, total = alpha.item(), probs.sum().item()
        g = _like(x, g)
        want_x, want_alpha, want_probs = ctx.needs_input_grad[:3]
        to_x = torch.empty_like(x) if want_x else None
        above, found = 0.0, [0.0] * len(ctx.bits)
        steps = [levels(b) / top for b in ctx.bits]
        buffers = x.new_empty(2, min(PIECE, x.numel()))
        for piece, grad, *out in _pieces(_flat(x), _flat(g), *([_flat(to_x)] if want_x else [])):
            inside, passed = buffers[0, : piece.numel()], out[0] if out else buffers[1, : piece.numel()]
            torch.clamp(piece, 0.0, top, out=inside)
            if want_x or want_alpha:
                torch.mul(grad, inside == piece, out=passed)  # g where 0 ≤ x ≤ α
            if want_alpha:
                above += torch.dot(grad, (piece >= top).to(grad.dtype)).item()
            if want_probs:
                _inner(inside, grad, steps, found)
            if want_x and total != 1.0:
                passed.mul_(total)
        to_alpha = alpha.new_tensor(above * total) if want_alpha else None
        shares = [f * top / levels(b) for f, b in zip(found, ctx.bits)]
        to_probs = torch.tensor(shares, dtype=probs.dtype) if want_probs else None
        return to_x, to_alpha, to_probs, None


def _mix(x: Tensor, shares: Sequence[float], steps: Sequence[float], out: Tensor) -> None:
    """out = Σ_i shares_i·round(steps_i·x)."""
    (share, step), *others = zip(shares, steps)
    torch.mul(x, step, out=out).round_().mul_(share)
    if others:
        code = torch.empty_like(x)
        for share, step in others:
            torch.mul(x, step, out=code)
            out.add_(code.round_(), alpha=share)


def _inner(x: Tensor, g: Tensor, steps: Sequence[float], found: list[float]) -> None:
    """found_i += <g, round(steps_i·x)>."""
    code = torch.empty_like(x)
    for i, step in enumerate(steps):
        torch.mul(x, step, out=code)
        found[i] += torch.dot(code.round_(), g).item()
