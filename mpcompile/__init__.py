"""mpcompile: networks whose layers have different bitwidths, faster than int8, on the device at hand.

    import mpcompile as mp
    mp.compile("model.onnx", target="native", output="model.mpc")
    with mp.open_bundle("model.mpc") as bundle:
        y = bundle.run(x)

The names below are looked up when they are used: `import mpcompile` loads neither TVM nor torch nor onnx.
"""

import os
from importlib import import_module

# In a checkout, schedules/ and targets/ stand beside this folder, and only an installation puts them into it. Python that
# is started there imports this folder, whatever is installed, and finds them all the same.
_ABOVE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
if not os.path.isdir(os.path.join(__path__[0], "targets")) and os.path.isfile(os.path.join(_ABOVE, "pyproject.toml")):
    __path__.append(_ABOVE)

__version__ = "0.1.0"

_WHERE = {
    "load": ("mpcompile.frontend", "load"),
    "compile": ("mpcompile.compiler.api", "compile_model"),
    "export_c": ("mpcompile.compiler.c_export.api", "export_c"),
    "open_bundle": ("mpcompile.runtime", "open_bundle"),
    "verify": ("mpcompile.compiler.verify", "verify"),
    "profile": ("mpcompile.workbench", "profile"),
    "tune": ("mpcompile.tuning.tune", "tune"),
    "run_search": ("mpcompile.measured_search", "run_search"),
    "load_target": ("mpcompile.targets", "load_target"),
    "list_targets": ("mpcompile.targets", "list_targets"),
}

__all__ = ["__version__", *_WHERE]


def __getattr__(name: str):
    if name not in _WHERE:
        raise AttributeError(f"module 'mpcompile' has no attribute {name!r}")
    module, attribute = _WHERE[name]
    value = getattr(import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__():
    return sorted({*globals(), *_WHERE})
