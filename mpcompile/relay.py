"""For users of Relay in TVM 0.19: `mpcompile.relay.BitSerialize(target)(mod)`. What it is made of:
mpcompile/tvm_frontend/relay."""

from mpcompile.tvm_frontend.relay import *  # noqa: F403
from mpcompile.tvm_frontend.relay import __all__ as __all__
