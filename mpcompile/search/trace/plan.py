"""What one eager pass of a module shows: its layers in the order in which they run, which tensor each reads, and what
cannot be quantized, with the reason. The module is left as it was.

A tensor is one, however many layers read it: it is known by its identity and by how often it was written in place.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils import _pytree as pytree

from mpcompile.errors import ModelError

LAYERS = nn.Conv1d, nn.Conv2d, nn.Linear
FLOATS = (
    *(nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Bilinear),
    *(nn.MultiheadAttention, nn.RNNBase, nn.RNNCellBase),
)
"""Modules that hold products of weights, none of which our layers compute."""
FUNCTIONS = nn.SiLU, nn.Hardswish, nn.GELU, nn.Mish, nn.ELU, nn.Sigmoid, nn.Hardsigmoid, nn.Tanh
"""Of one number: quantized before, they are tables of codes in the layer that writes these; else they run in float."""
PRODUCTS = (
    *("linear", "bilinear", "matmul", "mm", "bmm", "addmm", "baddbmm", "einsum", "scaled_dot_product_attention"),
    *("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
)
"""Functions that stay in float wherever a module calls them without one of our layers around."""


@dataclass(frozen=True)
class PlannedLayer:
    """`tensor`: what it reads; `macs`: multiply-accumulates for one sample; `tokens`: a Linear over [N, T, C]."""

    tensor: str
    macs: int
    tokens: bool = False


@dataclass(frozen=True)
class Plan:
    """`layers`: those that can be quantized, by their name in the module, in the order in which they run. `functions`: of
    FUNCTIONS, those between them → the tensor that each reads. `signed`: tensor → whether it has values below 0. `floats`:
    what stays in float → why. `outputs`: the structure of what the module returns."""

    layers: dict[str, PlannedLayer]
    functions: dict[str, str]
    signed: dict[str, bool]
    floats: dict[str, str]
    outputs: pytree.TreeSpec
    classes: int

    @property
    def first(self) -> str:
        return next(iter(self.layers))

    @property
    def last(self) -> str:
        return next(reversed(self.layers))


def plan(model: nn.Module, example: Tensor, sample: Tensor | None = None) -> Plan:
    """`example`: float32, an input as the module takes it, batch in front; `sample`: real data of that shape, which tell
    the signs of tensors; without, noise does.

    Raises ModelError, naming the place in the code, where the module does not run on it, and where it has no layer that can
    be quantized.
    """
    if sample is None:
        draw = torch.Generator().manual_seed(0)
        sample = torch.randn(example.shape, generator=draw) if example.std(correction=0) == 0 else example
    watch = _Watch(model)
    training = {m: m.training for m in model.modules()}
    model.eval()
    try:
        with torch.no_grad(), watch.attached():
            found = model(sample)
    except Exception as error:
        raise ModelError(
            f"{type(model).__name__} does not run on an input of shape {list(sample.shape)}: {said_of(error)}"
        ) from error
    finally:
        for module, was in training.items():
            module.training = was
    return watch.plan(found, len(sample))


def said_of(error: BaseException) -> str:
    """An error in one line, with the last place in code that is neither torch's nor ours."""
    line = next((text for text in str(error).splitlines() if text.strip()), type(error).__name__).strip()
    others = str(Path(torch.__file__).parent), str(Path(__file__).parents[1]), "<"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(others)]
    place = frames[-1] if frames else None
    return f"{line} ({Path(place.filename).name}, line {place.lineno}: {place.line})" if place else line


@dataclass
class _Call:
    """A layer's: what it read (kept, so that its identity is nobody else's), how often that had been written, and what it
    made of it. `at`: how many calls came before."""

    read: Tensor
    version: int
    at: int
    negative: bool
    out: Tensor | None = None

    def reads(self, other: _Call) -> bool:
        """Whether both read one tensor."""
        return self.read is other.read and self.version == other.version


@dataclass
class _Watch:
    model: nn.Module
    calls: dict[str, list[_Call]] = field(default_factory=dict)
    count: int = 0
    floats: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def attached(self) -> Iterator[None]:
        functions = _Functions(self.floats)
        with ExitStack() as stack:
            for name, module in self.model.named_modules():
                if isinstance(module, (*LAYERS, *FUNCTIONS)):
                    stack.callback(module.register_forward_pre_hook(self._before(name, functions)).remove)
                    stack.callback(module.register_forward_hook(self._after(name, functions), always_call=True).remove)
                elif isinstance(module, FLOATS):
                    self.floats[name] = f"a {type(module).__name__} runs in float"
                    stack.callback(module.register_forward_pre_hook(functions.enter).remove)
                    stack.callback(module.register_forward_hook(functions.leave, always_call=True).remove)
                else:
                    stack.callback(module.register_forward_pre_hook(functions.into(name)).remove)
                    stack.callback(module.register_forward_hook(functions.out_of, always_call=True).remove)
            stack.enter_context(functions)
            yield

    def _before(self, name: str, functions: _Functions):
        def hook(module: nn.Module, args: tuple) -> None:
            functions.inside += 1
            if args and isinstance(args[0], Tensor):
                read = args[0]
                call = _Call(read, read._version, self.count, bool((read < 0).any()))
                self.calls.setdefault(name, []).append(call)
                self.count += 1

        return hook

    def _after(self, name: str, functions: _Functions):
        def hook(module: nn.Module, args: tuple, out: Any) -> None:
            functions.inside -= 1
            if isinstance(out, Tensor) and name in self.calls:
                self.calls[name][-1].out = out

        return hook

    def plan(self, found: Any, batch: int) -> Plan:
        modules = dict(self.model.named_modules())
        layers, signed, tensors = {}, {}, []
        for name, module in modules.items():
            if isinstance(module, LAYERS) and name not in self.calls:
                self.floats[name] = "is never called by itself"
        homes: dict[int, list[str]] = {}
        called = {name: calls for name, calls in self.calls.items() if isinstance(modules[name], LAYERS)}
        for name in called:
            homes.setdefault(id(getattr(modules[name], "weight", None)), []).append(name)
        for name, calls in called.items():
            module = modules[name]
            shared = [n for n in homes[id(getattr(module, "weight", None))] if n != name]
            if why := _unfit(module, calls, shared):
                self.floats[name] = why
                continue
            call = calls[0]
            tensor = next((t for t, c in tensors if c.reads(call)), None)
            if tensor is None:
                tensor = f"{name or 'layer'}.input"
                tensors.append((tensor, call))
            signed[tensor] = signed.get(tensor, False) or call.negative
            weight = getattr(module, "weight")  # noqa: B009  # of which nn.Module's type knows nothing
            tokens = weight.dim() == 2 and call.read.dim() == 3
            positions = call.read.shape[1:2] if tokens else call.out.shape[2:] if call.out is not None else ()
            layers[name] = PlannedLayer(tensor, weight.numel() * math.prod(positions), tokens)
        if not layers:
            why = "; ".join(f"{name or 'the module'} {reason}" for name, reason in list(self.floats.items())[:3])
            raise ModelError(
                f"{type(self.model).__name__} has no Conv1d, Conv2d or Linear that can be quantized"
                + (f": {why}" if why else "")
            )
        values, spec = pytree.tree_flatten(found)
        if not values or not all(isinstance(v, Tensor) and v.dim() and len(v) == batch for v in values):
            raise ModelError(
                f"{type(self.model).__name__} must return tensors with the batch in front, alone, in lists or dicts"
            )
        last = max(self.calls[name][0].at for name in layers)
        functions = {}
        for name, calls in self.calls.items():
            taken = [c for _, c in tensors if c.reads(calls[0])]
            if isinstance(modules[name], FUNCTIONS) and len(calls) == 1 and calls[0].at < last and not taken:
                if calls[0].read.dtype == torch.float32 and not any(calls[0].out is v for v in values):
                    functions[name] = f"{name}.input"
                    signed[functions[name]] = calls[0].negative
        return Plan(layers, functions, signed, self.floats, spec, int(values[0].shape[-1]))


def _unfit(module: nn.Module, calls: list[_Call], shared: list[str]) -> str | None:
    """Why a layer cannot be quantized, as the rest of a sentence; None where it can."""
    weight = getattr(module, "weight", None)
    if len(calls) > 1:
        return f"is called {len(calls)} times"
    if shared:
        return f"shares its weights with {shared[0]}"
    if not isinstance(weight, nn.Parameter) or parametrize.is_parametrized(module):
        return "computes its weights anew in every pass"
    if weight.dtype != torch.float32 or calls[0].read.dtype != torch.float32:
        return f"is of {weight.dtype} and reads {calls[0].read.dtype}"
    wanted = (2, 3) if type(module).forward is nn.Linear.forward else (weight.dim(),)
    if calls[0].read.dim() not in wanted:
        return f"reads a tensor of {calls[0].read.dim()} axes, where {' or '.join(map(str, wanted))} can be quantized"
    if getattr(module, "padding_mode", "zeros") != "zeros":
        return f"pads by {module.padding_mode}"
    return None


class _Functions(TorchFunctionMode):
    """Notes products that are computed outside of our layers. `inside`: how many layers are at work."""

    def __init__(self, floats: dict[str, str]):
        super().__init__()
        self.floats, self.inside, self.names = floats, 0, []

    def enter(self, module: nn.Module, args: tuple) -> None:
        self.inside += 1

    def leave(self, module: nn.Module, args: tuple, out: Any) -> None:
        self.inside -= 1

    def into(self, name: str):
        def hook(module: nn.Module, args: tuple) -> None:
            self.names.append(name or type(module).__name__)

        return hook

    def out_of(self, module: nn.Module, args: tuple, out: Any) -> None:
        self.names.pop()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = (resolve_name(func) or getattr(func, "__name__", "")).rpartition(".")[2].strip("_").removeprefix("r")
        if name in PRODUCTS and not self.inside:
            where = self.names[-1] if self.names else "the module"
            self.floats.setdefault(f"{name} in {where}", "is no layer with weights of its own")
        return func(*args, **(kwargs or {}))
