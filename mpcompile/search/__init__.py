"""Bitwidth search in PyTorch: quantizers, methods, objectives over measured latency, retraining, export to QONNX.

What compiles and measures is handed in as functions (`device.SearchDevice`): this room knows neither compiler nor TVM.
"""

import sys
from types import ModuleType

import mpcompile


class _Room(ModuleType):
    """This room bears the name of what the API offers, `mp.search(model, …)`, and so can be called."""

    def __call__(self, *arguments, **keywords):
        return mpcompile.offered("search")(*arguments, **keywords)


sys.modules[__name__].__class__ = _Room
