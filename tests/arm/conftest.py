"""These tests need cross compilers, QEMU, an emulated board and the like: `make test-arm` installs them. Without them
they fail; none is skipped. Those marked `quick` are what continuous integration runs."""

import pytest

from tests.arm import board, emulator


def pytest_configure(config):
    config.addinivalue_line("markers", "quick: part of make test-arm ARM=quick")


@pytest.fixture(scope="session", autouse=True)
def tools():
    missing = emulator.missing_tools() + ([] if board.PYTHON.exists() else ["an emulated board"])
    if missing:
        pytest.exit(f"the ARM tests need {', '.join(missing)}: run make test-arm", 5)
    yield
    emulator.remove_files()
