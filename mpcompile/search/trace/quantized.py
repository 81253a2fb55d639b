"""What is attached to a module's layers: their weights' quantization as a parametrization, their input's as a hook."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from mpcompile.errors import ModelError
from mpcompile.ir.grid import Grid
from mpcompile.search.layers import BitChoice

SMALLEST_SIZE = 1e-8
"""An output channel's weights have at least this deviation."""
INPUT = "input_quantizer"
"""The submodule of a layer that quantizes what it reads, and others with it."""
QONNX = "qonnx.custom_op.general"
NAME = "mpcompile_name"
"""An attribute of nodes that lasts from tracing until the file is written."""


@dataclass(frozen=True)
class Node:
    """Of QONNX, at one bitwidth. All of it is computed before torch.export looks on, to which it is constant. `data`: what
    is quantized, where that is constant, too."""

    name: str
    op: str
    attributes: dict[str, Any]
    constants: tuple[Tensor, ...]
    data: Tensor | None = None

    @staticmethod
    def of(name: str, grid: Grid, scale: Tensor, data: Tensor | None = None) -> Node:
        """Onto `grid`, real value scale·q: u = q/step + zero, 0 ≤ u < levels."""
        scale = scale.float().cpu()
        if grid.lo == -1 and grid.levels == 2 and grid.step == 2:
            return Node(name, f"{QONNX}::BipolarQuant", {}, (scale,), data)
        if grid.levels != 1 << grid.bits:
            raise ModelError(f"{name}: a {grid} cannot be written as an unsigned QONNX quantizer")
        constants = (scale * grid.step, torch.tensor(-grid.lo / grid.step), torch.tensor(float(grid.bits)))
        attributes = dict(signed=0, narrow=0, rounding_mode="ROUND")
        return Node(name, f"{QONNX}::IntQuant", attributes, constants, data)

    def on(self, x: Tensor) -> Tensor:
        """The node, for torch.onnx."""
        data = x if self.data is None else self.data
        attributes, shape = {**self.attributes, NAME: self.name}, tuple(data.shape)
        return torch.onnx.ops.symbolic(
            self.op, (data, *self.constants), attributes, dtype=x.dtype, shape=shape, version=1
        )


@dataclass
class Quantized:
    """`x` as it was when it had been written `version` times, and `y`, what came of it; `left`: who has not read it yet."""

    x: Tensor
    version: int
    y: Tensor
    left: int


@dataclass
class Passing:
    """What the next forward pass is for, shared by all that is attached to a module. `nodes`: while it is traced for a
    file, the node of each choice. `readers`: choice → how many layers read what it quantizes, `quantized`: while
    some of them have not yet, what came of it."""

    starting: bool = False
    nodes: dict[int, Node] = field(default_factory=dict)
    readers: dict[BitChoice, int] = field(default_factory=dict)
    quantized: dict[BitChoice, Quantized] = field(default_factory=dict)


class WeightQuantization(nn.Module):
    """A parametrization: w [O, …] → each output channel divided by its deviation, quantized, multiplied by it again. So
    one clip fits all channels, and the network keeps its sizes whatever the bits; in float w is untouched.
    """

    def __init__(self, choice: BitChoice, passing: Passing):
        super().__init__()
        self.choice, self.passing = choice, passing
        self.axes = 0
        """Of one element, that the file's weights have besides, at the end."""

    def forward(self, weight: Tensor) -> Tensor:
        if self.choice.idle:
            return weight
        if node := self.passing.nodes.get(id(self.choice)):
            return node.on(weight)
        size = self.size(weight)
        return size * self.choice(weight / size)

    @staticmethod
    def size(weight: Tensor) -> Tensor:
        """[O, 1, …]."""
        return weight.square().mean(tuple(range(1, weight.dim())), keepdim=True).sqrt().clamp_min(SMALLEST_SIZE)

    def codes(self, weight: Tensor) -> Tensor:
        """The levels that stand in the file, weight's shape."""
        return self.choice.quantizer.codes(weight / self.size(weight), settled(self.choice))

    @torch.no_grad()
    def node(self, weight: Tensor) -> Node:
        """The quantized weights are what is stored, so that no function has to be computed the same way twice."""
        bits, quantizer = settled(self.choice), self.choice.quantizer
        grid, scale = quantizer.grid(bits), quantizer.scale(bits) * self.size(weight).double().cpu()
        q = torch.from_numpy(grid.value(self.codes(weight).cpu().numpy()))
        more = (1,) * self.axes
        return Node.of(
            self.choice.name, grid, scale.reshape(*scale.shape, *more), (q * scale).float().reshape(*q.shape, *more)
        )


class InputQuantization:
    """A layer's pre-hook. All layers that read one tensor have hooks of one choice; each pass quantizes it once."""

    def __init__(self, choice: BitChoice, passing: Passing):
        self.choice, self.passing = choice, passing

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        x = args[0]
        return (self.quantized(x), *args[1:])

    def quantized(self, x: Tensor) -> Tensor:
        choice, passing = self.choice, self.passing
        if passing.starting:
            choice.quantizer.start_from(x)
        if choice.idle:
            return x
        done = passing.quantized.get(choice)
        if done is not None and done.x is x and done.version == x._version:
            done.left -= 1
            if not done.left:
                del passing.quantized[choice]
            return done.y
        node = passing.nodes.get(id(choice))
        y = choice(x) if node is None else node.on(x)
        if (left := passing.readers.get(choice, 1) - 1) > 0:
            passing.quantized[choice] = Quantized(x, x._version, y, left)
        return y


def settled(choice: BitChoice) -> int:
    """Raises ModelError where bits are being mixed."""
    if choice.probs is not None or choice.bits is None:
        raise ModelError(f"{choice.name} is a mixture of bitwidths: set its bits before exporting")
    return choice.bits


def input_node(choice: BitChoice) -> Node:
    bits = settled(choice)
    return Node.of(choice.name, choice.quantizer.grid(bits), torch.tensor(choice.quantizer.scale(bits)))


class TracedLayer:
    """A layer of a module as the search sees it."""

    def __init__(self, name: str, module: nn.Module, choice: BitChoice):
        self.name, self.module, self.choice = name, module, choice

    @property
    def weight(self) -> Tensor:
        """As it is trained, whatever the bits."""
        original = parametrizations_of(self.module).original
        assert isinstance(original, Tensor)
        return original


def parametrizations_of(module: nn.Module) -> parametrize.ParametrizationList:
    """Of its weights."""
    found = cast(nn.ModuleDict, module.parametrizations)["weight"]
    assert isinstance(found, parametrize.ParametrizationList)
    return found


def attach_weight(module: nn.Module, choice: BitChoice, passing: Passing) -> None:
    parametrize.register_parametrization(module, "weight", WeightQuantization(choice, passing))


@torch.no_grad()
def detach(model: nn.Module) -> None:
    """Every layer's weights as they are quantized, for good; what quantizes inputs stays. `model` may be a copy: torch's
    own remove_parametrizations would take the weights from the original, too, whose class is the same."""
    for module in model.modules():
        for hook in module._forward_pre_hooks.values():
            if isinstance(hook, InputQuantization):
                hook.passing.readers.clear()  # nobody says when a pass is over
        if parametrize.is_parametrized(module, "weight"):
            weight, original = cast(Tensor, module.weight), parametrizations_of(module).original
            module.__class__ = parametrize.type_before_parametrizations(module)
            del module._modules["parametrizations"]
            module.register_parameter("weight", nn.Parameter(weight.clone(), requires_grad=original.requires_grad))
