"""The stand-in, and a small bundle for it."""

import pytest

from tests.cuda.small_network import write
from tests.cuda.standin import build


@pytest.fixture(scope="session")
def standin(tmp_path_factory):
    return build(tmp_path_factory.mktemp("standin"))


@pytest.fixture(scope="session")
def bundle(tmp_path_factory):
    return write(tmp_path_factory.mktemp("bundle") / "small.mpc")
