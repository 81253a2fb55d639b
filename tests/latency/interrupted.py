"""`mpcompile profile` as a process that is interrupted in the middle of its work."""

import signal
import subprocess
import sys
from pathlib import Path

from tests.patience import PATIENCE, until


def interrupted_profile(model: Path, folder: Path, bits: str, *options) -> str:
    """Interrupts a table of these bits when the first are on disk; what the command printed on stderr.

    Fails unless it ends with 130, without a table, and every line of the cells is whole.
    """
    table, cells = folder / "lut.json", folder / "lut.json.cells"
    command = [
        sys.executable,
        "-m",
        "mpcompile",
        "profile",
        model,
        "--bits",
        bits,
        "--threads",
        "1",
        "-o",
        table,
        *options,
    ]
    running = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    until(lambda: (cells.exists() and b"\n" in cells.read_bytes()) or running.poll() is not None, PATIENCE)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=PATIENCE)
    assert running.returncode == 130 and not table.exists() and cells.read_text().endswith("\n"), errors
    return errors
