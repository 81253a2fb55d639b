"""`import mpcompile` is quick and loads nothing heavy; each verb loads only what it needs."""

import json
import resource
import subprocess
import sys

import pytest

from tests.patience import SOON

HEAVY = ("tvm", "tvm_ffi", "torch", "onnx", "onnx_ir", "onnxruntime", "numpy", "rich", "brevitas", "qonnx")


def loaded_by(code: str) -> list[str]:
    """The heavy modules in sys.modules of a fresh interpreter after `code`."""
    report = f"\nimport sys, json\nprint(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code + report], capture_output=True, text=True, timeout=SOON)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_import_loads_nothing_heavy():
    assert loaded_by("import mpcompile; mpcompile.__version__; dir(mpcompile)") == []


def test_import_is_quick():
    """The best of some fresh interpreters, less the bare interpreter's own start; in seconds of a core, so that other
    processes do not count."""

    def used() -> float:
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return children.ru_utime + children.ru_stime

    def best(code: str) -> float:
        times = []
        for _ in range(5):
            before = used()
            subprocess.run([sys.executable, "-c", code], check=True, timeout=SOON)
            times.append(used() - before)
        return min(times)

    assert best("import mpcompile") - best("pass") < 0.2


@pytest.mark.parametrize(
    "code, may",
    [
        ("from mpcompile.cli import parser; parser()", set()),
        ("import mpcompile as mp; mp.load_target('zen5'); mp.load_target('native'); mp.list_targets()", set()),
        ("from mpcompile.cli import main; main(['targets'])", {"rich", "numpy"}),
        ("from mpcompile.runtime import archive, bundle", {"numpy"}),
        ("import mpcompile.reference.compare, mpcompile.reference.run", {"numpy"}),
        ("import mpcompile.latency.measure", {"numpy"}),
        ("import mpcompile.frontend", {"numpy"}),
    ],
)
def test_parts_load_only_what_they_need(code, may):
    assert set(loaded_by(code)) <= may


def test_names_of_the_api():
    import mpcompile as mp
    from mpcompile.runtime import open_bundle

    assert mp.open_bundle is open_bundle and callable(mp.load) and callable(mp.compile) and callable(mp.load_target)
    assert {"load", "compile", "open_bundle", "verify"} <= set(mp.__all__) <= set(dir(mp))
    with pytest.raises(AttributeError, match="no attribute 'conjure'"):
        _ = mp.conjure
