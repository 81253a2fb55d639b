"""The small bundle as fixtures."""

import pytest

from tests.runtime.small_bundle import small_library, small_variant, write_small


@pytest.fixture(scope="session")
def library(tmp_path_factory) -> bytes:
    return small_library(tmp_path_factory.mktemp("library"))


@pytest.fixture
def bundle_path(tmp_path, library):
    return write_small(tmp_path / "small.mpc", small_variant(library))
