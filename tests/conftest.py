"""For all tests."""

import os
import signal
from pathlib import Path

LONG = (
    "compile/test_exported_networks.py",
    "compile/test_onnx_backend.py",
    "faults",
    "frontend/test_onnx_backend.py",
    "fuzz",
    "kernels/test_definitions.py",
    "latency/test_two_processes.py",
    "search/test_damaged_run.py",
)
"""What `make test` leaves to `make test-long`: whole networks, and every way in which a command may be broken off."""

# Where the tests run in the background of a shell, SIGINT arrives ignored, and so it would in the processes that they
# interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Help is wrapped, and tables are coloured, as in a pipe, whatever terminal or service the tests are started from.
os.environ["COLUMNS"] = "80"
for name in ("FORCE_COLOR", "MPCOMPILE_TRACKER"):
    os.environ.pop(name, None)


def pytest_configure(config):
    config.addinivalue_line("markers", "long: part of make test-long")


def pytest_collection_modifyitems(items):
    here = Path(__file__).parent
    for item in items:
        name = item.path.relative_to(here).as_posix() if item.path.is_relative_to(here) else ""
        if any(name == part or name.startswith(f"{part}/") for part in LONG):
            item.add_marker("long")
