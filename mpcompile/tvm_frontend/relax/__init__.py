"""For users of Relax, TVM's graph IR since 0.15: `mpcompile.relax.BitSerialize`."""

from mpcompile.tvm_frontend.relax.bit_serialize import BitSerialize

__all__ = ["BitSerialize"]
