"""Real devices of one key: this machine served several times, each a process that can be killed, and their tracker."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from mpcompile.remote.tracker import devices

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 120


class Farm:
    """A tracker, and devices under `key`. Ended with the block, whatever became of them."""

    key = "box"

    def __init__(self, folder: Path):
        self.folder = folder
        self.processes: list[subprocess.Popen] = []
        self.port = self._address(self._start("tracker", ["tracker", "--host", "127.0.0.1", "--port", "0"]))

    @property
    def tracker(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def options(self) -> list[str]:
        return ["--tracker", self.tracker, "--key", self.key]

    def serve(self, name: str, env: dict[str, str] | None = None) -> subprocess.Popen:
        """Another device; `env`: what its environment has besides."""
        options = ["serve", "--host", "127.0.0.1", "--port", "0", "--tracker", self.tracker, "--key", self.key]
        return self._start(name, options, env)

    def wait(self, count: int) -> None:
        """Until so many devices are registered."""
        deadline = time.monotonic() + SECONDS
        while len(devices(self.tracker)) < count:
            assert time.monotonic() < deadline, [p.read_text() for p in self.folder.glob("*.log")]
            assert all(p.poll() is None for p in self.processes), [p.read_text() for p in self.folder.glob("*.log")]
            time.sleep(0.1)

    def __enter__(self) -> Farm:
        return self

    def __exit__(self, *_) -> None:
        for process in self.processes:
            kill(process)

    def _start(self, name: str, options: list[str], env: dict[str, str] | None = None) -> subprocess.Popen:
        with open(self.folder / f"{name}.log", "w") as log:
            process = subprocess.Popen([sys.executable, "-m", "mpcompile", *options], stdout=log, stderr=log, cwd=ROOT,
                                       env=os.environ | (env or {}), start_new_session=True)
        self.processes.append(process)
        return process

    def _address(self, process: subprocess.Popen) -> int:
        deadline = time.monotonic() + SECONDS
        while not (found := re.search(r"127\.0\.0\.1:(\d+)", (self.folder / "tracker.log").read_text())):
            assert process.poll() is None and time.monotonic() < deadline, (self.folder / "tracker.log").read_text()
            time.sleep(0.05)
        return int(found[1])


def kill(process: subprocess.Popen) -> None:
    """With its children, at once, as a power cut does; its sessions notice by themselves."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()
