"""For users of Relax, TVM's graph IR since 0.15: `mpcompile.relax.BitSerialize`, and QONNX for Relax's ONNX importer."""

from mpcompile.tvm_frontend.relax.bit_serialize import BitSerialize
from mpcompile.tvm_frontend.relax.importer import from_onnx
from mpcompile.tvm_frontend.relax.operators import int_quant

__all__ = ["BitSerialize", "from_onnx", "int_quant"]
