"""An emulated board that offers itself to hosts: `mpcompile serve` in tests/arm/board.py's system."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mpcompile.errors import TargetError
from mpcompile.remote.tracker import devices
from tests.arm import board
from tests.patience import PATIENCE, until


@contextmanager
def emulated_device(core: str, tracker: str, key: str, folder: Path) -> Iterator[subprocess.Popen]:
    """Serves a board of that core under `key` until the block ends, which kills it with all its children. What it says
    goes to `folder`; yields when the tracker knows it."""
    before = _known(tracker, key)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "serve.log", "w") as log:
        process = subprocess.Popen(
            [board.PYTHON, "-m", "mpcompile", "serve", "--port", "0", "--tracker", tracker, "--key", key],
            stdout=log,
            stderr=log,
            cwd=folder,
            env=board.environment(core),
            start_new_session=True,
        )
    try:

        def known() -> bool:
            assert process.poll() is None, (folder / "serve.log").read_text()
            return _known(tracker, key) > before

        until(known, PATIENCE, pause=0.2)
        yield process
    finally:
        kill(process)


def kill(process: subprocess.Popen) -> None:
    """With its children, at once, as a power cut does."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _known(tracker: str, key: str) -> int:
    """How many the tracker knows; a busy machine may take its time to answer."""

    def asked() -> tuple[int] | None:
        try:
            return (sum(d.key == key for d in devices(tracker)),)
        except TargetError:
            return None

    return until(asked, PATIENCE)[0]
