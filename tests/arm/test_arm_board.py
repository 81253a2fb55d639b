"""mpcompile as a board has it, on an emulated Pi 3, 4 and 5: bundles that were compiled here run there, from its own
command line, to the same bytes as here and as the reference; a CPU without an instruction refuses them."""

import json
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import mpcompile as mp
from mpcompile.api.verify import fused
from mpcompile.reference.run import run as reference
from mpcompile.targets import cpu
from tests.arm import board

DATA = Path(__file__).parents[1] / "data"
MODELS = ("brevitas_residual_w3a4", "ort_qdq_uint8")
SAMPLES = 3


@cache
def expected(model: str) -> tuple[np.ndarray, np.ndarray]:
    """Samples, and the exact reference's outputs."""
    graph = fused(DATA / f"{model}.onnx")
    (name,), (output,) = graph.inputs, graph.outputs
    x = np.random.default_rng(5).normal(0, 1.5, (SAMPLES, *graph.types[name].shape)).astype(np.float32)
    assert graph.types[output].quantizer is None
    return x, np.stack([reference(graph, {name: sample})[output] for sample in x])


def lines(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("target", board.CORES)
@pytest.mark.parametrize("model", [pytest.param(MODELS[0], marks=pytest.mark.quick), *MODELS[1:]])
def test_run_and_bench(model, target, tmp_path):
    x, y = expected(model)
    np.savez(tmp_path / "x.npz", x)
    mp.compile(DATA / f"{model}.onnx", target=target, output=tmp_path / "m.mpc")
    mp.compile(DATA / f"{model}.onnx", target="x86-64-v2", output=tmp_path / "x86.mpc")
    with mp.open_bundle(tmp_path / "x86.mpc", threads=1) as bundle:
        here = bundle.run(x)
    core = board.CORES[target]
    threads = min(2, len(cpu.allowed()))
    done = board.mpcompile(
        core, "run", "m.mpc", "--input", "x.npz", "--output", "y.npz", "--threads", threads, folder=tmp_path
    )
    assert done.returncode == 0 and f"{threads} thread" in lines(done.stdout), done.stderr
    (there,) = np.load(tmp_path / "y.npz").values()
    assert there.dtype == np.float32 and here.tobytes() == y.tobytes() == there.tobytes()
    done = board.mpcompile(core, "bench", "m.mpc", "--rounds", "1", "--json", "b.json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert all(t["seconds"] > 0 for t in json.loads((tmp_path / "b.json").read_text())["timings"].values())


def test_any_board_runs_the_least(tmp_path):
    """What is compiled for any 64-bit ARM CPU runs on each of them."""
    x, y = expected(MODELS[0])
    np.savez(tmp_path / "x.npz", x)
    mp.compile(DATA / f"{MODELS[0]}.onnx", target="aarch64", output=tmp_path / "m.mpc")
    for core in board.CORES.values():
        done = board.mpcompile(core, "run", "m.mpc", "--input", "x.npz", "--output", "y.npz", folder=tmp_path)
        assert done.returncode == 0, done.stderr
        (there,) = np.load(tmp_path / "y.npz").values()
        assert there.tobytes() == y.tobytes()


@pytest.mark.parametrize(
    "target, core, lacks",
    [
        pytest.param("rpi5", "cortex-a72", "asimddp", marks=pytest.mark.quick),
        ("rpi5", "cortex-a53", "asimddp"),
        ("aarch64-dotprod", "cortex-a72", "asimddp"),
    ],
)
def test_a_core_that_lacks_an_instruction_is_refused(target, core, lacks, tmp_path):
    """In one line, by HWCAP, before any of the bundle's code is loaded."""
    x, _ = expected(MODELS[0])
    np.savez(tmp_path / "x.npz", x)
    mp.compile(DATA / f"{MODELS[0]}.onnx", target=target, output=tmp_path / "m.mpc")
    for verb in (["run", "m.mpc", "--input", "x.npz", "--output", "y.npz"], ["bench", "m.mpc"]):
        done = board.mpcompile(core, *verb, folder=tmp_path)
        assert done.returncode == 4 and lacks in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
    assert not (tmp_path / "y.npz").exists()


@pytest.mark.quick
@pytest.mark.parametrize("target", board.CORES)
def test_doctor(target, tmp_path):
    """The base is whole, the CPU is known by what the kernel says of it, and nothing that boards need not is there."""
    done = board.mpcompile(board.CORES[target], "doctor", "--json", "d.json", folder=tmp_path)
    found = {f["name"]: f for f in json.loads((tmp_path / "d.json").read_text())["findings"]}
    assert done.returncode == 0, done.stdout + done.stderr
    assert found["TVM loads"]["found"].endswith("without its compiler")
    assert found["onnx"]["ok"] is None and found["torch"]["ok"] is None
    assert ("dot product" in found["CPU"]["found"]) == (target == "rpi5")


def test_what_a_board_cannot_do_is_one_line(tmp_path):
    for verb in (["compile", DATA / f"{MODELS[0]}.onnx"], ["profile", DATA / f"{MODELS[0]}.onnx"]):
        done = board.mpcompile("cortex-a72", *verb, folder=tmp_path)
        assert done.returncode == 5 and len(done.stderr.splitlines()) == 1 and "compiler" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.quick
def test_the_install_is_whole(tmp_path):
    """Every dependency of the wheel is there, at the version of constraints.txt."""
    code = (
        "import json; from importlib import metadata as m; import re; need = m.requires('mpcompile')\n"
        "names = [re.split(r'[^\\w.-]', n)[0] for n in need if 'extra ==' not in n]\n"
        "print(json.dumps({n: m.version(n) for n in names}))"
    )
    done = board.python("cortex-a53", "-c", code, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)$", (board.ROOT / "constraints.txt").read_text(), re.MULTILINE))
    found = json.loads(done.stdout)
    assert {"apache-tvm", "numpy", "psutil"} <= set(found) and found == {name: pins[name] for name in found}
