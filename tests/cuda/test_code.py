"""The library of a bundle for CUDA: what is written is read, and nothing else is."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpcompile.errors import ModelError
from mpcompile.runtime.cuda.code import MAGIC, START, CudaCode, Function, Launch

LAUNCH = Launch("scale_kernel", (7, 1, 2), (128, 2, 1), 49152, (1, 0, 2, 3))
CODE = CudaCode(
    {"scale": Function(3, (1024,), (LAUNCH, replace(LAUNCH, kernel="other"))), "nothing": Function(0, (), ())},
    {"sm_80": b"\x7fELF" + bytes(range(97)), "sm_87": b"x", "sm_90": b""},
    {"cuda": "// ö\n"},
)


def test_what_is_written_is_read():
    assert CudaCode.from_bytes(CODE.to_bytes()) == CODE
    assert CudaCode.from_bytes(memoryview(CODE.to_bytes())) == CODE


def test_cubins_lie_where_a_device_likes_them():
    data = CODE.to_bytes()
    assert data[:8] == b"MPCUDA1\n"
    length = int.from_bytes(data[8:16], "little")
    placed = json.loads(data[16 : 16 + length])["cubins"]
    assert list(placed) == ["sm_80", "sm_87", "sm_90"]
    for arch, (at, size) in placed.items():
        assert at % 64 == 0 and at >= 16 + length and data[at : at + size] == CODE.cubins[arch]


@given(
    st.dictionaries(st.sampled_from([f"sm_{n}" for n in range(50, 120)]), st.binary(max_size=200), min_size=1),
    st.text(st.characters(codec="utf-8"), max_size=200),
)
def test_any_cubins_and_any_source(cubins, source):
    code = CudaCode(CODE.functions, cubins, {"cuda": source})
    assert CudaCode.from_bytes(code.to_bytes()) == code


def test_every_cut_is_noticed():
    data = CODE.to_bytes()
    for length in range(len(data)):
        with pytest.raises(ModelError) as error:
            CudaCode.from_bytes(data[:length])
        assert "\n" not in str(error.value)


def changed(**keys) -> bytes:
    """The code with other keys in its header."""
    data = CODE.to_bytes()
    length = int.from_bytes(data[8:16], "little")
    header = json.dumps(json.loads(data[START : START + length]) | keys).encode()
    return MAGIC + len(header).to_bytes(8, "little") + header + bytes(4096)


@pytest.mark.parametrize(
    "keys, said",
    [
        ({"cubins": {}}, "header.cubins must be"),
        ({"cubins": {"sm_80": [63, 1]}}, "no 1 bytes of sm_80 are at byte 63"),
        ({"cubins": {"sm_80": [64, 1 << 40]}}, "no 1099511627776 bytes of sm_80 are at byte 64"),
        ({"cubins": {"sm_80": [-64, 1]}}, "header.cubins"),
        ({"more": 1}, "header has more, which is unknown"),
        ({"functions": {"": {"parameters": 1, "scratch": [], "launches": []}}}, "must be str of length >= 1"),
        ({"functions": {"f": {"parameters": 1, "scratch": []}}}, "lacks launches"),
        ({"functions": {"f": {"parameters": -1, "scratch": [], "launches": []}}}, "parameters must be"),
        ({"sources": 3}, "header.sources must be an object, not 3"),
    ],
)
def test_what_its_header_must_hold(keys, said):
    with pytest.raises(ModelError, match=said.replace("[", r"\[")) as error:
        CudaCode.from_bytes(changed(**keys))
    assert str(error.value).startswith("the bundle's CUDA code is damaged: ") and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "launch, said",
    [
        ({"arguments": (0, 4)}, "scale_kernel takes argument 4 of function scale, which has 4"),
        ({"block": (1024, 2, 1)}, "blocks of 2048 threads, and there are at most 1024"),
        ({"grid": (0, 1, 1)}, "grid"),
        ({"grid": (1, 1 << 16, 1)}, "grid"),
        ({"shared_bytes": -1}, "shared_bytes"),
        ({"kernel": ""}, "kernel"),
    ],
)
def test_what_no_device_can_launch(launch, said):
    code = CudaCode({"scale": Function(3, (1024,), (replace(LAUNCH, **launch),))}, {"sm_80": b""})
    with pytest.raises(ModelError, match=said):
        CudaCode.from_bytes(code.to_bytes())


def test_something_else_is_said_to_be_none():
    with pytest.raises(ModelError, match="is no CUDA code of this version"):
        CudaCode.from_bytes(b"\x7fELF" + bytes(100))
    with pytest.raises(ModelError, match="its header is no JSON"):
        CudaCode.from_bytes(MAGIC + (4).to_bytes(8, "little") + b"\xff{}!")
