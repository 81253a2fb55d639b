"""The demo's modules import each other by bare names, as files beside the script that runs them."""

import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[2] / "examples" / "demo"


@pytest.fixture
def demo_path(monkeypatch):
    monkeypatch.syspath_prepend(str(DEMO))
    yield DEMO
    for name, module in list(sys.modules.items()):
        if Path(getattr(module, "__file__", None) or "").parent == DEMO:
            del sys.modules[name]
