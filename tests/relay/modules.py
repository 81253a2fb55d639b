"""Small Relay modules, and running them by each of TVM's executors."""

import itertools
import tempfile
from pathlib import Path

import numpy as np
import tvm
from tvm import relay
from tvm.contrib import graph_executor

_numbers = itertools.count()


def quantized(x, scale=0.5, high=3):
    codes = relay.clip(relay.qnn.op.quantize(x, relay.const(scale), relay.const(0), out_dtype="uint8"), 0, high)
    return relay.qnn.op.dequantize(codes, relay.const(scale), relay.const(0))


def weight(rng, shape, bits=2):
    """Scales are powers of two: what float operators compute of it is exact."""
    codes = rng.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), shape).astype(np.int8)
    scale = np.full(shape[0], 0.25, np.float32)
    return relay.qnn.op.dequantize(relay.const(codes), relay.const(scale), relay.const(0), axis=0)


def conv(rng, x, inputs, outputs, **options):
    shape = (outputs, inputs, 3, 3)
    return relay.nn.conv2d(x, weight(rng, shape), padding=(1, 1), channels=outputs, kernel_size=(3, 3), **options)


def integers(shape, seed=1):
    """Multiples of an eighth, but no halves of the quantizers' steps: Relay's own quantize takes ties away from 0."""
    codes = np.random.default_rng(seed).integers(-32, 33, shape) / 8
    return (codes + (np.abs(codes * 2 % 1) == 0.5) / 8).astype(np.float32)


def run(mod, *inputs, executor="graph", target="llvm"):
    """Compiled, exported, loaded and run: "graph", "aot" or "vm". Level 2: at 3 Relay takes convolutions by Winograd, whose
    sums are no longer exact."""
    names = [p.name_hint for p in mod["main"].params]
    with tempfile.TemporaryDirectory() as folder, tvm.transform.PassContext(opt_level=2):
        path = str(Path(folder) / f"library{next(_numbers)}.so")
        if executor == "vm":
            made = relay.vm.compile(mod, target=target)
            code, library = made.save()
            library.export_library(path)
            loaded = tvm.runtime.vm.Executable.load_exec(code, tvm.runtime.load_module(path))
            found = tvm.runtime.vm.VirtualMachine(loaded, tvm.cpu()).invoke("main", *map(tvm.nd.array, inputs))
            return [found.numpy()] if hasattr(found, "numpy") else [part.numpy() for part in found]
        options = {"executor": relay.backend.Executor("aot")} if executor == "aot" else {}
        relay.build(mod, target=target, **options).export_library(path)
        loaded = tvm.runtime.load_module(path)
    module = (
        tvm.runtime.executor.AotModule(loaded["default"](tvm.cpu()))
        if executor == "aot"
        else graph_executor.GraphModule(loaded["default"](tvm.cpu()))
    )
    for name, x in zip(names, inputs, strict=True):
        module.set_input(name, tvm.nd.array(x))
    module.run()
    return [module.get_output(i).numpy() for i in range(module.get_num_outputs())]
