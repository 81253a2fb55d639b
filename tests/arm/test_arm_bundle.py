"""A bundle for a board, made on another machine: its library is the board's, and it is refused here."""

import struct
import zipfile
from pathlib import Path

import pytest

import mpcompile as mp
from mpcompile.errors import TargetError

MODEL = Path(__file__).parents[1] / "data" / "brevitas_cnn_w2a2.onnx"
MACHINES = {
    "rpi3b": (2, 183),
    "rpi4b": (2, 183),
    "rpi5": (2, 183),
    "aarch64": (2, 183),
    "aarch64-dotprod": (2, 183),
    "rpi3b-32": (1, 40),
    "rpi4b-32": (1, 40),
}
"""ELF class (1: 32 bits) and machine (40: ARM, 183: AArch64)."""


@pytest.mark.quick
@pytest.mark.parametrize("board", MACHINES)
def test_cross_compile(tmp_path, board):
    path = mp.compile(MODEL, target=board, output=tmp_path / "m.mpc")
    with zipfile.ZipFile(path) as archive:
        library = next(archive.read(n) for n in archive.namelist() if n.endswith(".so"))
    assert library[:4] == b"\x7fELF"
    assert (library[4], struct.unpack_from("<H", library, 18)[0]) == MACHINES[board]
    with pytest.raises(TargetError, match=f"built for {'armv7l' if '-32' in board else 'aarch64'}"):
        mp.open_bundle(path)
