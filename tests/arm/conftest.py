"""These tests need cross compilers and QEMU: `make test-arm` installs them. Without them they fail; none is skipped."""

import pytest

from tests.arm import emulator


@pytest.fixture(scope="session", autouse=True)
def tools():
    missing = emulator.missing_tools()
    if missing:
        pytest.exit(f"the ARM tests need {', '.join(missing)}: run make test-arm", 5)
    yield
    emulator.remove_files()
