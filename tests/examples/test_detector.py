"""The detector: its arithmetic on boxes by hand, and the whole way from a float file to a picture."""

import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.patience import PATIENCE

FOLDER = Path(__file__).parents[2] / "examples" / "detector"


@pytest.fixture
def boxes(monkeypatch):
    """Names of boxes.py and pictures.py."""
    monkeypatch.syspath_prepend(str(FOLDER))
    names = runpy.run_path(str(FOLDER / "boxes.py"))
    yield names
    sys.modules.pop("pictures", None)


def test_a_box_overlaps_another_by_what_they_share(boxes):
    a, b = boxes["Box"](10, 10, 8, 4, 0), boxes["Box"](12, 10, 8, 4, 0)
    assert a.overlap(b) == pytest.approx(24 / 40) and a.overlap(a) == 1
    assert a.overlap(boxes["Box"](30, 10, 8, 4, 0)) == 0


def test_cells_become_boxes_and_none_beside_a_surer_one(boxes):
    cells = np.full((7, 6, 6), -9, np.float32)
    cells[1, 2, 3], cells[1, 2, 4] = 2.0, 1.0  # a square at column 3, and less surely beside it
    cells[3:, 2, 3] = 0.5, 0.25, np.log(2), np.log(3)
    (box,) = boxes["found"](cells)
    assert (box.x, box.y, box.width, box.height, box.kind) == pytest.approx((14, 9, 8, 12, 1))
    assert box.score == pytest.approx(1 / (1 + np.exp(-2.0)))


def test_average_precision_by_hand(boxes):
    """Of three discs two are found, a wrong one between them: 1 · ⅓ + ⅔ · ⅓; of the other classes none."""
    make = boxes["Box"]
    right = [[make(10, 10, 8, 8, 0), make(50, 50, 8, 8, 0)], [make(20, 20, 8, 8, 0)]]
    answers = [[make(10, 10, 8, 8, 0, 0.9), make(80, 80, 8, 8, 0, 0.8)], [make(20, 21, 8, 8, 0, 0.7)]]
    assert boxes["average_precision"](answers, right) == pytest.approx((1 / 3 + 2 / 3 / 3) / 3)
    twice = [[make(10, 10, 8, 8, 0, 0.9), make(10, 10, 8, 8, 0, 0.8)], []]
    assert boxes["average_precision"](twice, right) == pytest.approx(1 / 3 / 3)


def test_the_whole_way(tmp_path):
    """Hardly trained: what is asked is that int8 answers as the float network does, and that all is written."""
    pytest.importorskip("torch")
    done = subprocess.run(
        [sys.executable, str(FOLDER / "detect.py"), "-o", "out", "--steps", "200", "--judged", "40"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| ") and "network" not in line]
    assert len(rows) == 4
    of_float, *quantized = (float(row[1]) for row in rows)
    assert of_float > 0.2 and all(precision > of_float - 0.1 for precision in quantized[:2])
    written = {f.name for f in (tmp_path / "out").iterdir()}
    assert written >= {"float.onnx", "calibration.npz", "boxes.png"}
    assert written >= {f"{name}.{kind}" for name in ("int8_onnxruntime", "int8", "mixed") for kind in ("onnx", "mpc")}
    assert (tmp_path / "out" / "boxes.png").read_bytes().startswith(b"\x89PNG")
