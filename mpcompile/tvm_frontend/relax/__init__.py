"""For users of Relax, TVM's graph IR since 0.15: `mpcompile.relax.BitSerialize`; QONNX for Relax's ONNX importer, and what
pt2e leaves for its importer of PyTorch's exported programs."""

from mpcompile.tvm_frontend.relax.bit_serialize import BitSerialize
from mpcompile.tvm_frontend.relax.exported_program import from_exported_program
from mpcompile.tvm_frontend.relax.importer import from_onnx
from mpcompile.tvm_frontend.relax.operators import int_quant

__all__ = ["BitSerialize", "from_exported_program", "from_onnx", "int_quant"]
