"""Work for another environment's Python: the TVM that has Relay and the one that compiles kernels cannot be in one process.
Files cross, and a line of JSON; nothing is pickled."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from mpcompile import errors
from mpcompile.errors import MissingDependency, MpError

ROOT = Path(__file__).resolve().parents[2]
COMPILING, RELAY = "MPCOMPILE_PYTHON", "MPCOMPILE_RELAY_PYTHON"
"""Environment variables that name the Python which compiles kernels, and the one which has Relay."""
NOTE = "mpcompile-python"
"""File in the folder of Relay's environment that names the first, too: `make relay-env` writes it."""


def compiling_python() -> str:
    """The Python with mpcompile and the TVM that compiles kernels. Raises MissingDependency where none is known."""
    note = Path(sys.prefix) / NOTE
    named = os.environ.get(COMPILING) or (note.read_text(encoding="utf-8").strip() if note.is_file() else "")
    return _python(
        named,
        COMPILING,
        "kernels are compiled by another Python, and none is named: install mpcompile[compile] into an environment of its "
        f"own and set {COMPILING} to its Python (in a checkout: make relay-env)",
    )


def relay_python() -> str:
    """The Python with TVM 0.19: of $MPCOMPILE_RELAY_PYTHON, or of a checkout's .relay. Raises MissingDependency where there
    is none."""
    beside = ROOT / ".relay" / "bin" / "python"
    named = os.environ.get(RELAY) or (str(beside) if beside.exists() else "")
    return _python(
        named,
        RELAY,
        f"Relay needs TVM 0.19 in an environment of its own, and none is named: set {RELAY} to its Python (in a checkout: "
        "make relay-env)",
    )


def _python(named: str, variable: str, absent: str) -> str:
    if not named:
        raise MissingDependency(absent)
    if not os.access(named, os.X_OK):
        raise MissingDependency(f"there is no Python {named}: set {variable} to one that is there")
    return named


def ask(python: str, module: str, arguments: Sequence[str]) -> dict:
    """Runs `python -m module arguments`; what the last line that it prints says. Raises what it says went wrong, and
    MissingDependency where it does not run."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [python, "-m", module, *arguments],
        capture_output=True,
        text=True,
        errors="replace",
        env=os.environ | {"PYTHONPATH": path},
    )
    try:
        answer = json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError):
        words = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
        raise MissingDependency(
            f"{python} -m {module} failed ({words.strip()}): {python} -m mpcompile doctor"
        ) from None
    if "error" in answer:
        raise getattr(errors, answer["kind"], MpError)(answer["error"])
    return answer


def build_region(
    model: Path, target: str, symbol: str, interface: str, output: Path, records: str | None = None
) -> list[dict]:
    """Writes `output`; the layers. As build.build_region, and raises what that raises."""
    arguments = [str(model), "--target", target, "--symbol", symbol, "--interface", interface, "-o", str(output)]
    arguments += ["--records", records] if records else []
    return ask(compiling_python(), "mpcompile.tvm_frontend.build", arguments)["layers"]
