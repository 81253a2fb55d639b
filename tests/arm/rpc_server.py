"""TVM's own RPC server on an emulated board, of whichever TVM is in its path. Nothing of a TVM here."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.patience import PATIENCE, until

PYARM = Path(__file__).resolve().parents[2] / ".arm" / "pyarm"


@contextmanager
def rpc_session(connect: Callable[[str, int], Any], core: str, packages: Path, folder: Path) -> Iterator[Any]:
    """A session with a server that runs until the block ends. connect: tvm.rpc.connect; packages: a folder with TVM in it,
    in front of what the system has; what the server says goes to `folder`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "TVM_", "OMP_"))}
    with open(folder / "server.log", "w") as log:
        process = subprocess.Popen(
            [PYARM, "-m", "tvm.exec.rpc_server", "--host", "127.0.0.1", f"--port={port}", f"--port-end={port + 1}"],
            stdout=log,
            stderr=log,
            cwd=folder,
            env=kept | {"QEMU_CPU": core, "PYTHONPATH": str(packages), "TVM_NUM_THREADS": "2"},
            start_new_session=True,
        )
    try:

        def connected() -> Any:
            assert process.poll() is None, (folder / "server.log").read_text()
            try:
                return connect("127.0.0.1", port)
            except Exception:  # nobody listens yet: each TVM has errors of its own for it
                return None

        yield until(connected, PATIENCE, pause=0.5)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
