"""For users of Relay, TVM's graph IR up to 0.19: `mpcompile.relay.BitSerialize`."""

from mpcompile.tvm_frontend.relay.bit_serialize import BitSerialize

__all__ = ["BitSerialize"]
