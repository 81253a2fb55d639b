"""Small Relax modules, and running them."""

import itertools
import tempfile
from pathlib import Path

import numpy as np
import tvm
from tvm import relax

op = relax.op
_numbers = itertools.count()


def const(value, dtype="float32"):
    return relax.const(np.asarray(value, dtype))


class Maker:
    """Builds a function main of dataflow over inputs of these shapes. Scales are powers of two, so that float arithmetic
    is exact, and TVM's own float operators are a witness to the bit."""

    def __init__(self, *shapes):
        self.rng = np.random.default_rng(0)
        self.inputs = [relax.Var(f"x{i}", relax.TensorType(shape, "float32")) for i, shape in enumerate(shapes)]
        self.builder = relax.BlockBuilder()

    def module(self, body) -> tvm.IRModule:
        """`body(maker, *inputs)` gives an expression, or a list of several."""
        with self.builder.function("main", self.inputs):
            with self.builder.dataflow():
                made = body(self, *self.inputs)
                several = isinstance(made, list)
                result = self.builder.emit_output(relax.Tuple(made) if several else made)
            self.builder.emit_func_output(result)
        return self.builder.get()

    def emit(self, expression):
        return self.builder.emit(expression)

    def quantized(self, x, scale=0.5, low=0, high=3, dtype="uint8"):
        codes = self.emit(op.quantize(x, const(scale), const(0, dtype), axis=1, out_dtype=dtype))
        codes = self.emit(op.minimum(self.emit(op.maximum(codes, const(low, dtype))), const(high, dtype)))
        return self.emit(op.dequantize(codes, const(scale), const(0, dtype), axis=1))

    def weight(self, shape, bits=2):
        codes = self.rng.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), shape)
        scale, zero = np.full(shape[0], 0.25), np.zeros(shape[0])
        return self.emit(op.dequantize(const(codes, "int8"), const(scale), const(zero, "int8"), axis=0))

    def conv(self, x, inputs, outputs, **options):
        return self.emit(op.nn.conv2d(x, self.weight((outputs, inputs, 3, 3)), padding=(1, 1), **options))


def run(mod: tvm.IRModule, *inputs: np.ndarray) -> list[np.ndarray]:
    """By TVM's compiler and VirtualMachine, from a library of its own file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"library{next(_numbers)}.so"
        tvm.compile(mod, target="llvm").export_library(str(path))
        machine = relax.VirtualMachine(tvm.runtime.load_module(str(path)), tvm.cpu())
        made = machine["main"](*map(tvm.runtime.tensor, inputs))
    return [made.numpy()] if hasattr(made, "numpy") else [part.numpy() for part in made]


def calls_of(mod: tvm.IRModule) -> list[str]:
    """Names of operators that main still has, in order."""
    bindings = [b for block in mod["main"].body.blocks for b in block.bindings]
    return [b.value.op.name for b in bindings if isinstance(b.value, relax.Call) and isinstance(b.value.op, tvm.ir.Op)]
