"""TVM 0.19's bit-serial convolution as a subject of the measurer."""

from __future__ import annotations

import json

from benchmarks.networks import Bits, ConvShape
from benchmarks.tvm019 import Tvm019
from mpcompile.latency.timer import Timer

DEFAULT = "NCHW uint32"
"""The operator's own defaults: layout and word."""


class Bitserial(Tvm019):
    """A TVM 0.19 that builds and runs nn.bitserial_conv2d for that CPU (LLVM's name)."""

    def __init__(self, mcpu: str):
        super().__init__("tvm_bitserial_server", mcpu)

    def timers(self, shape: ConvShape, bits: Bits, trials: int = 0) -> dict[str, Timer]:
        """Its default setting, and the fastest of all that compute the right result: name → timer. Bit packing of the
        activations is part of the operator, as it was for its users. With trials, so many schedules of the fastest are
        tried by autotvm, and the best is one of them."""
        key = [shape.c, shape.h, shape.o, shape.stride, shape.k, bits.w, bits.a]
        built = self.ask({"build": key, "trials": trials})["built"]

        def timer(setting: str) -> Timer:
            return self.timer({"run": setting, "of": json.dumps(key)})

        found = {"default": timer(DEFAULT)} if DEFAULT in built else {}
        return found | ({f"best ({min(built, key=built.get)})": timer(min(built, key=built.get))} if built else {})
