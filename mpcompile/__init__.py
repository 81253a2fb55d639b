"""mpcompile: networks whose layers have different bitwidths, faster than int8, on the device at hand.

    import mpcompile as mp
    mp.compile("model.onnx", target="native", output="model.mpc")
    with mp.open_bundle("model.mpc") as bundle:
        y = bundle.run(x)

The names below are looked up when they are used: `import mpcompile` loads neither TVM nor torch nor onnx.
"""

from importlib import import_module
from typing import Any

__version__ = "0.2.0"

_WHERE = {
    "load": ("mpcompile.frontend", "load"),
    "compile": ("mpcompile.api.compile", "compile_model"),
    "export_c": ("mpcompile.api.export_c", "export_c"),
    "open_bundle": ("mpcompile.runtime", "open_bundle"),
    "verify": ("mpcompile.api.verify", "verify"),
    "profile": ("mpcompile.api.profile", "profile"),
    "tune": ("mpcompile.api.tune", "tune"),
    "quantize": ("mpcompile.api.quantize", "quantize"),
    "search": ("mpcompile.api.search", "search"),
    "run_search": ("mpcompile.api.search", "run_search"),
    "load_target": ("mpcompile.targets", "load_target"),
    "list_targets": ("mpcompile.targets", "list_targets"),
}

_ROOMS = ("search",)
"""Names that are a room's, too: the room can be called."""

__all__ = ["__version__", *_WHERE]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'mpcompile' has no attribute {name!r}")
    value = offered(name)
    if name in _ROOMS:  # importing it has put the room here: it stays, and is what is called
        return import_module(f"{__name__}.{name}")
    globals()[name] = value
    return value


def offered(name: str) -> Any:
    """The function of that name."""
    module, attribute = _WHERE[name]
    return getattr(import_module(module), attribute)


def __dir__():
    return sorted({*globals(), *_WHERE})
