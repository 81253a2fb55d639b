"""`te` and `tirx` of tvm_names, for families' files: TVM is loaded when one of them is first used.

A family's file says what it accepts and costs as well as how it is expressed, and the former needs no TVM: neither do
`mpcompile targets` and `mpcompile inspect MODEL.onnx`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mpcompile.kernels.tvm_names import te, tirx
else:

    class _WhenUsed:
        def __init__(self, name: str):
            self.name = name

        def __getattr__(self, attribute: str):
            from mpcompile.kernels import tvm_names

            return getattr(getattr(tvm_names, self.name), attribute)

    te, tirx = _WhenUsed("te"), _WhenUsed("tirx")

__all__ = ["te", "tirx"]
