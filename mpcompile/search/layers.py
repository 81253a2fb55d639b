"""What a searched network is built of: choices, whose bits can be set or mixed, and the layers that hold them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mpcompile.errors import UsageError
from mpcompile.search.quantizers import FakeQuantizer


@dataclass(frozen=True)
class BitAssignment:
    """Bits of every layer's weights and of every quantized tensor, by name."""

    weights: Mapping[str, int]
    tensors: Mapping[str, int]

    def to_json(self) -> dict:
        return {"weights": dict(self.weights), "tensors": dict(self.tensors)}

    @staticmethod
    def from_json(data: dict) -> BitAssignment:
        return BitAssignment(
            {k: int(v) for k, v in data["weights"].items()}, {k: int(v) for k, v in data["tensors"].items()}
        )


class BitChoice(nn.Module):
    """A quantized thing with a choice of bits: a layer's weights, or a tensor (however many layers read it).

    In force is one of: `study`, whatever is asked what comes of x; `probs`, a mixture of all candidates; `bits`, one of
    them; none of these, no quantization at all.
    """

    def __init__(self, name: str, quantizer: FakeQuantizer):
        super().__init__()
        self.name, self.quantizer, self.candidates = name, quantizer, quantizer.bits
        self.bits: int | None = self.candidates[-1]
        self.probs: Tensor | None = None
        self.study: Callable[[Tensor], Tensor] | None = None

    @property
    def searched(self) -> bool:
        return len(self.candidates) > 1

    @property
    def idle(self) -> bool:
        """Whether nothing is in force."""
        return self.bits is None and self.probs is None and self.study is None

    def set(self, bits: int | None) -> None:
        """One bitwidth from now on; None: real numbers."""
        self.bits, self.probs = bits, None

    def forward(self, x: Tensor) -> Tensor:
        if self.study is not None:
            return self.study(x)
        if self.probs is not None:
            return self.quantizer.mix(x, self.probs)
        return self.quantizer.real(x) if self.bits is None else self.quantizer.fake(x, self.bits)


class SearchedLayer(Protocol):
    """`name`: its node's in the file; `weight`: as it is trained; `choice`: the weights' bits."""

    name: str
    choice: BitChoice

    @property
    def weight(self) -> Tensor: ...


class ConvLayer(nn.Module):
    """A 2-d convolution without bias, and the BatchNorm behind it; its weights are one choice. `name` is its node's in
    the file."""

    def __init__(self, name: str, i: int, o: int, kernel: int, stride: int, choice: BitChoice):
        super().__init__()
        self.name, self.stride, self.padding, self.choice = name, stride, kernel // 2, choice
        self.weight = nn.Parameter(torch.empty(o, i, kernel, kernel))
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")
        self.norm = nn.BatchNorm2d(o)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(nn.functional.conv2d(x, self.choice(self.weight), stride=self.stride, padding=self.padding))


class DenseLayer(nn.Module):
    """The last layer: gain·W·x + bias. No BatchNorm follows that could undo the size of quantized weights, so `gain` is
    learned."""

    def __init__(self, name: str, i: int, o: int, choice: BitChoice):
        super().__init__()
        self.name, self.choice = name, choice
        self.weight = nn.Parameter(torch.empty(o, i))
        nn.init.kaiming_normal_(self.weight, nonlinearity="linear")
        self.gain = nn.Parameter(torch.tensor(i**-0.5))
        self.bias = nn.Parameter(torch.zeros(o))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.gain * self.choice(self.weight), self.bias)


class ForwardPass:
    """How the operators of a network's `flow` are carried out: here on tensors. Other runs export, count or record."""

    def quantize(self, choice: BitChoice, x: Tensor) -> Tensor:
        return choice(x)

    def conv(self, layer: ConvLayer, x: Tensor) -> Tensor:
        return layer(x)

    def dense(self, layer: DenseLayer, x: Tensor) -> Tensor:
        return layer(x)

    def relu(self, name: str, x: Tensor) -> Tensor:
        return torch.relu(x)

    def add(self, name: str, x: Tensor, y: Tensor) -> Tensor:
        return x + y

    def mean(self, name: str, x: Tensor) -> Tensor:
        """[N, C, H, W] → [N, C]."""
        return x.mean((2, 3))


class Network(nn.Module, ABC):
    """What a search, its objective and its records ask of a network: samples float32 [N, …] → outputs."""

    input_shape: tuple[int, ...]
    classes: int

    @property
    def title(self) -> str:
        """Its kind, for reports."""
        return type(self).__name__

    @abstractmethod
    def layers(self) -> Iterator[SearchedLayer]:
        """Those whose weights are quantized."""

    @abstractmethod
    def reads(self) -> dict[str, str]:
        """Layer name → the tensor that it reads."""

    @abstractmethod
    def macs(self) -> dict[str, int]:
        """Layer name → multiply-accumulates for one sample."""

    @abstractmethod
    def start_clips(self, samples: Tensor) -> None:
        """Clips of the activation quantizers from one batch, in the network without quantization."""

    # -- choices -------------------------------------------------------------------------------------
    def choices(self) -> Iterator[BitChoice]:
        return (m for m in self.modules() if isinstance(m, BitChoice))

    @property
    def weights(self) -> dict[str, BitChoice]:
        """Layer name → the choice of its weights."""
        return {layer.name: layer.choice for layer in self.layers()}

    @property
    def tensors(self) -> dict[str, BitChoice]:
        """Tensor name → its choice."""
        of_layers = set(map(id, self.weights.values()))
        return {m.name: m for m in self.choices() if id(m) not in of_layers}

    def assign(self, assignment: BitAssignment | None) -> None:
        """One bitwidth each from now on; None: no quantization. Raises UsageError at a name or bits that are not the
        network's."""
        for kind, choices in (("weights", self.weights), ("tensors", self.tensors)):
            given = getattr(assignment, kind) if assignment else {}
            for name in given:
                if name not in choices:
                    raise UsageError(f"the network has no {kind[:-1]} {name}: it has {', '.join(choices)}")
            for name, choice in choices.items():
                bits = given.get(name, choice.candidates[-1]) if assignment else None
                if bits is not None and bits not in choice.candidates:
                    raise UsageError(
                        f"{name} cannot have {bits} bits: its candidates are {', '.join(map(str, choice.candidates))}"
                    )
                choice.set(bits)

    def uniform(self, w: int, a: int) -> BitAssignment:
        """w and a bits wherever there is a choice. Raises UsageError where they are no candidates."""
        for kind, bits, choices in (("weight", w, self.weights), ("activation", a, self.tensors)):
            for choice in choices.values():
                if choice.searched and bits not in choice.candidates:
                    raise UsageError(f"{bits} is none of the {kind} bits {', '.join(map(str, choice.candidates))}")
        return BitAssignment(
            {k: w if v.searched else v.candidates[0] for k, v in self.weights.items()},
            {k: a if v.searched else v.candidates[0] for k, v in self.tensors.items()},
        )


class FlowNetwork(Network):
    """Images float32 [N, C, H, W] in 0..1 → logits [N, classes]. Subclasses build layers and write `flow` once, over a
    `ForwardPass`."""

    input_shape: tuple[int, int, int]

    @abstractmethod
    def flow(self, x, ops: ForwardPass) -> Any:
        """Carries the operators out through `ops`, on whatever x is to it; returns the logits."""
        ...

    def forward(self, x: Tensor) -> Tensor:
        return self.flow(x, ForwardPass())

    def layers(self) -> Iterator[ConvLayer | DenseLayer]:
        return (m for m in self.modules() if isinstance(m, (ConvLayer, DenseLayer)))

    def reads(self) -> dict[str, str]:
        return {name: tensor for name, (tensor, _) in _counted(self).items()}

    def macs(self) -> dict[str, int]:
        return {name: macs for name, (_, macs) in _counted(self).items()}

    @torch.no_grad()
    def start_clips(self, samples: Tensor) -> None:
        before = {id(k): (k.bits, k.probs) for k in self.choices()}
        training = self.training
        self.train()
        self.assign(None)
        self.flow(samples, _StartClips())
        self.train(training)
        for k in self.choices():
            k.bits, k.probs = before[id(k)]


class _StartClips(ForwardPass):
    def quantize(self, choice: BitChoice, x: Tensor) -> Tensor:
        choice.quantizer.start_from(x)
        return choice(x)


class _Shape:
    """A tensor's shape without batch, and the quantized tensor whose values it holds."""

    def __init__(self, shape: tuple[int, ...], tensor: str = ""):
        self.shape, self.tensor = shape, tensor


class _Count(ForwardPass):
    def __init__(self):
        self.found: dict[str, tuple[str, int]] = {}

    def quantize(self, choice: BitChoice, x: _Shape) -> _Shape:
        return _Shape(x.shape, choice.name)

    def conv(self, layer: ConvLayer, x: _Shape) -> _Shape:
        o, i, k, _ = layer.weight.shape
        h, w = ((n + 2 * layer.padding - k) // layer.stride + 1 for n in x.shape[1:])
        self.found[layer.name] = x.tensor, o * i * k * k * h * w
        return _Shape((o, h, w))

    def dense(self, layer: DenseLayer, x: _Shape) -> _Shape:
        self.found[layer.name] = x.tensor, layer.weight.numel()
        return _Shape((layer.weight.shape[0],))

    def relu(self, name: str, x: _Shape) -> _Shape:
        return _Shape(x.shape)

    def add(self, name: str, x: _Shape, y: _Shape) -> _Shape:
        return _Shape(x.shape)

    def mean(self, name: str, x: _Shape) -> _Shape:
        return _Shape(x.shape[:1])


def _counted(network: FlowNetwork) -> dict[str, tuple[str, int]]:
    count = _Count()
    network.flow(_Shape(network.input_shape), count)
    return count.found
