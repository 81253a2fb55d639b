"""The small bundle as fixtures."""

import pytest

from mpcompile.runtime import write_bundle
from tests.runtime.small_bundle import small_library, small_manifest, small_weights


@pytest.fixture(scope="session")
def library(tmp_path_factory) -> bytes:
    return small_library(tmp_path_factory.mktemp("library"))


@pytest.fixture
def bundle_path(tmp_path, library):
    return write_bundle(tmp_path / "small.mpc", small_manifest(), library, small_weights())
