"""Processes with TVM 0.19 (make relay-env), which this process's TVM cannot be beside: a line of JSON in, a line out."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from mpcompile.errors import MpError
from mpcompile.latency.timer import Timer
from mpcompile.latency.waiting import NEVER
from mpcompile.tvm_frontend.child import relay_python


class Tvm019:
    """A running `benchmarks/SERVER.py`. Raises MissingDependency where there is no TVM 0.19."""

    def __init__(self, server: str, *arguments: str):
        root = Path(__file__).resolve().parents[1]
        self._process = subprocess.Popen(
            [relay_python(), "-m", f"benchmarks.{server}", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=root,
            env=os.environ | {"TOPHUB_LOCATION": "NONE", "TVM_NUM_THREADS": "1"},
        )

    def ask(self, question: dict) -> dict:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise MpError("TVM 0.19's process ended unexpectedly")
        answer = json.loads(line)
        if "error" in answer:
            raise MpError(f"TVM 0.19: {answer['error']}")
        return answer

    def timer(self, question: dict) -> Timer:
        """Of what the server runs `n` times and answers {"seconds": …} to, the waiting for a core taken off."""
        return Timer(lambda n: self.ask(question | {"n": n})["seconds"], NEVER)

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(timeout=20)
