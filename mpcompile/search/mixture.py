"""Σ_i p_i·Q_i(x) for all candidate bitwidths in one pass, forward and backward.

    Q_i(x) = s_i·(u_i − z_i),  u_i = clamp(round(x/s_i + z_i), 0, n_i),  n_i = 2^b_i − 1, halves to even

| levels   | range of x | s_i        | z_i   | gradient to x       | to c_i     |
|----------|------------|------------|-------|---------------------|------------|
| unsigned | 0 .. c_i   | c_i/n_i    | 0     | where 0 < x ≤ c_i   | where x > c_i (PACT) |
| unsigned, stepped | 0 .. c_i | c_i/n_i | 0    | where 0 < x ≤ c_i   | and within, (u_i − x/s_i)/n_i (LSQ) |
| odd      | −c_i .. c_i | 2·c_i/n_i | n_i/2 | everywhere          | none       |

Autograd's own composition would keep every candidate's tensor for the backward pass. Here only x is kept, and the
candidates are computed again, a piece at a time so that a piece stays in the cache. The gradient passes straight
through the rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

PIECE = 1 << 15
"""Elements of a piece for each thread: a few float32 buffers of this size fit into a core's L2 cache."""


def levels(bits: int) -> int:
    """n: how many steps a b-bit quantizer makes from end to end of its range."""
    return (1 << bits) - 1


def step_and_zero(clip: float, bits: int, odd: bool) -> tuple[float, float]:
    """(1/s, z) of one quantizer."""
    n = levels(bits)
    return (n / (2 * clip), n / 2) if odd else (n / clip, 0.0)


def codes(x: Tensor, step: float, zero: float, bits: int, out: Tensor | None = None) -> Tensor:
    """The levels u as numbers of x's dtype, in the one arithmetic that training and export share."""
    out = torch.mul(x, step, out=out)
    if zero:
        out.add_(zero)
    return out.round_().clamp_(0.0, levels(bits))


class Mixture(torch.autograd.Function):
    """x (any shape, float32 or bfloat16), clips [B] > 0, probs [B], bits (B of them), odd → the mixture, x's shape and
    dtype.

    Gradients to x, to the clips of unsigned levels, and to probs: <g, Q_i(x)>. `stepped`: the clip is a step times n, and
    what is learned is the step.
    """

    @staticmethod
    def forward(
        ctx, x: Tensor, clips: Tensor, probs: Tensor, bits: Sequence[int], odd: bool, stepped: bool = False
    ) -> Tensor:
        ctx.save_for_backward(x, clips, probs)
        ctx.bits, ctx.odd, ctx.stepped = tuple(bits), odd, stepped and not odd
        parts = _parts(clips, probs, ctx.bits, odd)
        moved = -sum(p / step * zero for p, step, zero, _ in parts)
        result = torch.empty_like(x)
        for piece, out in _pieces(_flat(x), _flat(result)):
            (p, step, zero, b), *others = parts
            codes(piece, step, zero, b, out).mul_(p / step)
            if others:
                code = torch.empty_like(piece)
                for p, step, zero, b in others:
                    out.add_(codes(piece, step, zero, b, code), alpha=p / step)
            if moved:
                out.add_(moved)
        return result

    @staticmethod
    def backward(ctx, g: Tensor):
        x, clips, probs = ctx.saved_tensors
        want_x, want_clips, want_probs = ctx.needs_input_grad[:3]
        parts, total = _parts(clips, probs, ctx.bits, ctx.odd), probs.sum().item()
        g = _like(x, g)
        to_x = g * total if want_x and ctx.odd else torch.empty_like(x) if want_x else None
        above, found = [0.0] * len(parts), [0.0] * len(parts)
        pass_clips = not ctx.odd and (want_x or want_clips)
        outs = [_flat(to_x)] if pass_clips and to_x is not None else []
        for piece, grad, *out in _pieces(_flat(x), _flat(g), *outs):
            if pass_clips:
                _clipped(piece, grad, parts, clips.tolist(), total, above if want_clips else None, *out)
            if want_clips and ctx.stepped:
                _within(_wide(piece), _wide(grad), parts, clips.tolist(), above)
            if want_probs:
                _inner(_wide(piece), _wide(grad), parts, found)
        to_clips = clips.new_tensor([a * p for a, (p, *_) in zip(above, parts)]) if want_clips else None
        return to_x, to_clips, probs.new_tensor(found) if want_probs else None, None, None, None


def _parts(clips: Tensor, probs: Tensor, bits: Sequence[int], odd: bool) -> list[tuple[float, float, float, int]]:
    """(p, 1/s, z, bits) of each candidate."""
    return [(p, *step_and_zero(c, b, odd), b) for c, p, b in zip(clips.tolist(), probs.tolist(), bits, strict=True)]


def _clipped(x: Tensor, g: Tensor, parts, clips: Sequence[float], total: float, above, out: Tensor | None = None):
    """out = g·Σ p_i·[0 < x ≤ c_i];  above_i += Σ g·[x > c_i]."""
    if out is not None:
        torch.ops.aten.threshold_backward.grad_input(g, x, 0, grad_input=out)
        if total != 1.0:
            out.mul_(total)
    over = torch.empty_like(g)
    for i, (clip, (p, *_)) in enumerate(zip(clips, parts)):
        torch.ops.aten.threshold_backward.grad_input(g, x, clip, grad_input=over)
        if out is not None:
            out.sub_(over, alpha=p)
        if above is not None:
            above[i] += _wide(over).sum().item()


def _within(x: Tensor, g: Tensor, parts, clips: Sequence[float], found: list[float]) -> None:
    """found_i += Σ g·(u_i − x/s_i)/n_i where 0 < x ≤ c_i: what rounding has to do with a step."""
    code, real = torch.empty_like(x), torch.empty_like(x)
    for i, (clip, (_, step, zero, b)) in enumerate(zip(clips, parts)):
        codes(x, step, zero, b, code).sub_(torch.mul(x, step, out=real)).masked_fill_((x <= 0) | (x > clip), 0.0)
        found[i] += torch.dot(code, g).item() / levels(b)


def _inner(x: Tensor, g: Tensor, parts, found: list[float]) -> None:
    """found_i += <g, Q_i(x)>."""
    code, whole = torch.empty_like(x), None
    for i, (_, step, zero, b) in enumerate(parts):
        codes(x, step, zero, b, code)
        if zero and whole is None:
            whole = g.sum().item()
        found[i] += (torch.dot(code, g).item() - (zero * whole if zero else 0.0)) / step


def _wide(x: Tensor) -> Tensor:
    """x to be summed: bfloat16 as float32."""
    return x.float() if x.dtype == torch.bfloat16 else x


def _pieces(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The tensors, flattened in one common order of memory, piece by piece."""
    size = PIECE * torch.get_num_threads()
    for at in range(0, tensors[0].numel(), size):
        yield tuple(t[at : at + size] for t in tensors)


def _like(x: Tensor, g: Tensor) -> Tensor:
    """g, contiguous as x is."""
    return g.contiguous(memory_format=torch.channels_last) if _last(x) else g.contiguous()


def _last(x: Tensor) -> bool:
    return x.dim() == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)


def _flat(x: Tensor) -> Tensor:
    """x as a vector over its memory, without a copy where it is contiguous in either format."""
    return x.permute(0, 2, 3, 1).reshape(-1) if _last(x) else x.reshape(-1)
