"""A quantized ONNX file through Relax: import, BitSerialize, TVM's compiler, TVM's virtual machine.

python examples/relax/onnx_file.py MODEL.onnx [-o MODEL.so]
"""

import argparse
from pathlib import Path

import numpy as np
import onnx
import tvm
from tvm import relax

import mpcompile.relax

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("model", type=Path)
parser.add_argument("-o", "--output", type=Path, help="TVM's library (default: beside the model)")
args = parser.parse_args()
output = args.output or args.model.with_suffix(".so")

model = onnx.load(args.model)
held = {i.name for i in model.graph.initializer}
inputs = [i for i in model.graph.input if i.name not in held]
shapes = {i.name: [d.dim_value or 1 for d in i.type.tensor_type.shape.dim] for i in inputs}
mod = mpcompile.relax.from_onnx(model, shape_dict=shapes, keep_params_in_input=False)
mod = mpcompile.relax.BitSerialize("native", explain=True)(mod)
tvm.compile(mod, target="llvm").export_library(str(output))

machine = relax.VirtualMachine(tvm.runtime.load_module(str(output)), tvm.cpu())
tensors = [tvm.runtime.tensor(np.zeros(shape, np.float32)) for shape in shapes.values()]
time = machine.time_evaluator("main", tvm.cpu(), number=10)(*tensors).mean
print(f"{output}: {1e6 * time:.0f} µs")
