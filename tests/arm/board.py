"""An emulated 64-bit board: Debian's arm64 Python under QEMU (.ci/arm-root), and mpcompile installed there from a wheel
of this checkout, as pip does it on a Raspberry Pi. No compiler, no onnx, no torch."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from tests.patience import PATIENCE
from tests.sources import package

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".arm"
PYTHON = FOLDER / "pyarm"
CORES = {"rpi3b": "cortex-a53", "rpi4b": "cortex-a72", "rpi5": "cortex-a76"}
"""QEMU's name of each 64-bit board's core."""
KEPT = 3


def _sources() -> dict[str, bytes]:
    """What the wheel is made from, by path."""
    return {name: (ROOT / name).read_bytes() for name in [*package(), "pyproject.toml", "README.md", "LICENSE"]}


@cache
def installed() -> Path:
    """The folder with mpcompile in it, for PYTHONPATH; made where this checkout's is not there yet."""
    assert PYTHON.exists(), "there is no emulated board: run make test-arm"
    with open(FOLDER / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one test process makes it, the others wait
        sources = _sources()
        digest = hashlib.sha256(b"".join(name.encode() + b"\0" + data for name, data in sorted(sources.items())))
        site = FOLDER / "sites" / digest.hexdigest()[:16]
        if not site.exists():
            _install(sources, site)
            for old in sorted(site.parent.iterdir(), key=os.path.getmtime)[:-KEPT]:
                shutil.rmtree(old)
        return site


def _install(sources: dict[str, bytes], site: Path) -> None:
    """pip's own way: a wheel, installed without this environment's packages."""
    site.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="part-", dir=FOLDER) as name:
        made = Path(name)
        for path, data in sources.items():
            (made / "source" / path).parent.mkdir(parents=True, exist_ok=True)
            (made / "source" / path).write_bytes(data)
        build = "import setuptools.build_meta as b, sys; b.build_wheel(sys.argv[1])"
        _quiet([sys.executable, "-c", build, made], made / "source")
        _quiet(
            [
                sys.executable,
                "-m",
                "pip",
                "install",
                "-q",
                "--no-deps",
                "--no-index",
                "--target",
                made / "site",
                next(made.glob("*.whl")),
            ],
            made,
        )
        (made / "site").rename(site)


def _quiet(command: list, folder: Path) -> None:
    done = subprocess.run([str(c) for c in command], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def environment(core: str) -> dict[str, str]:
    """For a process of the board: its core, its packages; nothing of this machine's Python."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "TVM_", "OMP_"))}
    return kept | {"QEMU_CPU": core, "PYTHONPATH": str(installed())}


def python(core: str, *words, folder: Path) -> subprocess.CompletedProcess:
    """Runs the board's Python in `folder`; what it printed."""
    return subprocess.run(
        [str(w) for w in (PYTHON, *words)],
        cwd=folder,
        env=environment(core),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def mpcompile(core: str, *words, folder: Path) -> subprocess.CompletedProcess:
    """The command line, on the board."""
    return python(core, "-m", "mpcompile", *words, folder=folder)
