"""For users of TVM's Relax: `mpcompile.relax.BitSerialize(target)(mod)`. What it is made of:
mpcompile/tvm_frontend/relax."""

from mpcompile.tvm_frontend.relax import *  # noqa: F403
from mpcompile.tvm_frontend.relax import __all__ as __all__
