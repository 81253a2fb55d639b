"""Real devices of one key: this machine served several times, each a process that can be killed, and their tracker."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.patience import until
from tests.remote.processes import Process

ROOT = Path(__file__).resolve().parents[2]


class Farm:
    """A tracker, and devices under `key`. Ended with the block, whatever became of them."""

    key = "box"

    def __init__(self):
        self.processes = [Process("tracker", "--port", "0")]
        self.tracker = self.processes[0].address

    @property
    def options(self) -> list[str]:
        return ["--tracker", self.tracker, "--key", self.key]

    def serve(self, **env: str) -> Process:
        """Another device; `env`: what its environment has besides."""
        os.environ |= env
        try:
            self.processes.append(Process("serve", "--port", "0", *self.options))
        finally:
            for name in env:
                del os.environ[name]
        return self.processes[-1]

    def wait(self, count: int) -> None:
        """Until the tracker has so many devices to lend: one that was just given back takes a moment. Fails where it has
        ended, or so many devices have that the others are too few."""

        def too_few() -> str:
            ended = [words for process in self.processes if (words := process.over())]
            tracker_ended = bool(self.processes[0].over())
            return "; ".join(ended) if tracker_ended or len(self.processes) - 1 - len(ended) < count else ""

        until(lambda: self._free() >= count, unless=too_few)

    def _free(self) -> int:
        from tvm import rpc

        host, port = self.tracker.split(":")
        return rpc.connect_tracker(host, int(port)).summary()["queue_info"].get(self.key, {}).get("free", 0)

    def __enter__(self) -> Farm:
        return self

    def __exit__(self, *_) -> None:
        for process in self.processes:
            kill(process)


def kill(process: Process) -> None:
    """With its children, at once, as a power cut does; its sessions notice by themselves."""
    if process.process.poll() is None:
        os.killpg(process.process.pid, signal.SIGKILL)
        process.process.wait()
