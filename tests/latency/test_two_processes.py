"""Two `mpcompile profile` on one file: the second is told so, and the first measures each cell once."""

import json
import signal
import subprocess
import sys
from pathlib import Path

from tests.patience import PATIENCE, until

MODEL = Path(__file__).parents[1] / "data" / "brevitas_mlp_w3a3.onnx"


def command(table: Path) -> list[str]:
    options = ["--bits", "w12a12", "--threads", "1", "--rounds", "3", "-o", str(table)]
    return [sys.executable, "-m", "mpcompile", "profile", str(MODEL), *options]


def test_the_second_is_told_which_process_measures(tmp_path):
    table, cells = tmp_path / "lut.json", tmp_path / "lut.json.cells"
    with open(tmp_path / "said", "w") as said, subprocess.Popen(command(table), stdout=said, stderr=said) as first:
        try:
            until(lambda: cells.exists() and cells.read_bytes(), PATIENCE, unless=first.poll)
            first.send_signal(signal.SIGSTOP)  # in the middle of it, for as long as the second takes
            assert first.poll() is None and not table.exists()
            kept = cells.read_bytes()
            second = subprocess.run(command(table), capture_output=True, text=True, timeout=PATIENCE)
            assert second.returncode == 2 and second.stdout == ""
            says = f"another process ({first.pid}) writes to {cells}: wait for it, or name another file"
            assert second.stderr == f"mpcompile: {says}\n"
            assert cells.read_bytes().startswith(kept)
            first.send_signal(signal.SIGCONT)
            assert first.wait(PATIENCE) == 0, (tmp_path / "said").read_text()
        finally:
            first.kill()
    keys = [json.loads(line)["key"] for line in cells.read_text().splitlines()]
    assert len(keys) == len(set(keys)) and table.exists()
