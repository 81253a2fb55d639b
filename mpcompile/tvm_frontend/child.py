"""A region built by another process, which has the TVM that our kernels are compiled with. Files cross, and a line of JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from mpcompile import errors
from mpcompile.errors import MissingDependency, MpError

VARIABLE = "MPCOMPILE_PYTHON"
"""Environment variable that names the Python which compiles kernels."""
NOTE = "mpcompile-python"
"""File in an environment's folder that names it, too: `make relay-env` writes it."""


def compiling_python() -> str:
    """The Python with mpcompile and the TVM that compiles kernels. Raises MissingDependency where none is known."""
    named = os.environ.get(VARIABLE)
    note = Path(sys.prefix) / NOTE
    if not named and note.is_file():
        named = note.read_text(encoding="utf-8").strip()
    if named and os.access(named, os.X_OK):
        return named
    if named:
        raise MissingDependency(f"there is no Python {named}, which is to compile kernels: set {VARIABLE} to one that is")
    raise MissingDependency(
        "kernels are compiled by another Python, and none is named: install mpcompile[compile] into an environment of its "
        f"own and set {VARIABLE} to its Python (in a checkout: make relay-env)"
    )


def build_region(model: Path, target: str, symbol: str, interface: str, output: Path, records: str | None = None) -> list[dict]:
    """Writes `output`; the layers. As build.build_region, and raises what that raises."""
    python = compiling_python()
    command = [python, "-m", "mpcompile.tvm_frontend.build", str(model), "--target", target, "--symbol", symbol]
    command += ["--interface", interface, "-o", str(output), *(["--records", records] if records else [])]
    root = str(Path(__file__).resolve().parents[2])
    path = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", env=os.environ | {"PYTHONPATH": os.pathsep.join(path)})
    said = done.stdout.strip().splitlines()
    try:
        answer = json.loads(said[-1])
    except (IndexError, ValueError):
        words = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise MissingDependency(f"{python} does not compile kernels ({words}): {python} -m mpcompile doctor") from None
    if "error" in answer:
        kind = getattr(errors, answer["kind"], MpError)
        raise kind(answer["error"])
    return answer["layers"]
