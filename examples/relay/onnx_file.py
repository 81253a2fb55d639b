"""A quantized ONNX file through Relay: import, BitSerialize, relay.build, the graph executor.

Needs TVM 0.19 (make relay-env).

.relay/bin/python examples/relay/onnx_file.py MODEL.onnx [-o MODEL.so]
"""

import argparse
from pathlib import Path

import numpy as np
import onnx
import tvm
from tvm import relay
from tvm.contrib import graph_executor

import mpcompile.relay

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("model", type=Path)
parser.add_argument("-o", "--output", type=Path, help="TVM's library (default: beside the model)")
args = parser.parse_args()
output = args.output or args.model.with_suffix(".so")

model = onnx.load(args.model)
held = {i.name for i in model.graph.initializer}
inputs = [i for i in model.graph.input if i.name not in held]
shapes = {i.name: [d.dim_value or 1 for d in i.type.tensor_type.shape.dim] for i in inputs}
mod, _ = mpcompile.relay.from_onnx(model, shapes)
mod = mpcompile.relay.BitSerialize("native", explain=True)(mod)
print(mod["main"])
with tvm.transform.PassContext(opt_level=3):
    relay.build(mod, target="llvm").export_library(str(output))

device = tvm.cpu()
module = graph_executor.GraphModule(tvm.runtime.load_module(str(output))["default"](device))
for name, shape in shapes.items():
    module.set_input(name, np.zeros(shape, np.float32))
time = module.benchmark(device, number=10).mean
print(f"{output}: {1e6 * time:.0f} µs")
