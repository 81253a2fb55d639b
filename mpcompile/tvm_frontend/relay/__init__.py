"""For users of Relay, TVM's graph IR up to 0.19: `mpcompile.relay.BitSerialize`, and QONNX for Relay's ONNX importer."""

from mpcompile.tvm_frontend.relay.bit_serialize import BitSerialize
from mpcompile.tvm_frontend.relay.importer import from_onnx
from mpcompile.tvm_frontend.relay.operators import int_quant

__all__ = ["BitSerialize", "from_onnx", "int_quant"]
