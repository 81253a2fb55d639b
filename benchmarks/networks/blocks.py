"""What the networks have in common: a Builder with the bits of the layers between the ends, and both ends."""

from __future__ import annotations

from benchmarks.networks.builder import Bits, Builder, Network, calibration_image

ENDS = 8
"""Bits of the first and the last layer, weights and activations."""


class Blocks(Builder):
    """`w` and `a`: bits of the layers between the ends (0 in float)."""

    def __init__(self, bits: Bits | None, size: int, seed: int):
        super().__init__(seed, bits is not None)
        self.w, self.a = (bits.w, bits.a) if bits else (0, 0)
        self.values["image"] = calibration_image(size, seed)

    def image(self) -> str:
        return self.activation("image", ENDS, "image_quant", signed=True)

    def conv_bn(
        self, x: str, out: int, k: int, stride: int, name: str, bits: int | None = None, groups: int = 1
    ) -> str:
        """Convolution and BatchNorm; `bits` of the weights where they are not the network's."""
        y = self.conv(x, out, k, stride, self.w if bits is None else bits, name, groups=groups)
        return self.batch_norm(y, f"{name}_bn")

    def conv_relu(self, x: str, out: int, k: int, stride: int, name: str, bits: int | None = None) -> str:
        """… and ReLU, float."""
        return self.relu(self.conv_bn(x, out, k, stride, name, bits), f"{name}_relu")

    def quant(self, x: str, name: str, bits: int | None = None, signed: bool = False) -> str:
        """`x` on the network's activation bits, or on so many."""
        return self.activation(x, self.a if bits is None else bits, f"{name}_quant", signed)

    def classifier(self, x: str, classes: int) -> Network:
        """Global average, then the last dense layer."""
        x = self.flatten(self.global_average(x, "pool"), "flat")
        return self.network("image", self.dense(self.quant(x, "flat", ENDS), classes, ENDS, "classes"))
