"""The C export: the same bytes as the bundle, from a program without TVM or Python; its errors; two models in one."""

import importlib.util
import re
import shutil
import subprocess
from math import prod
from pathlib import Path

import numpy as np
import pytest

import mpcompile as mp
from mpcompile.api.export_c import export_c
from mpcompile.cli import main
from mpcompile.compiler.c_export.source import identifier
from mpcompile.errors import TargetError, UsageError
from tests.patience import PATIENCE

DATA = Path(__file__).parents[1] / "data"
MODELS = (
    "brevitas_concat",
    "brevitas_keywords",
    "brevitas_quantized_skip",
    "brevitas_residual_w3a4",
    "brevitas_separable_qcdq",
    "brevitas_truncated_pool",
    "hand_half_integer",
    "ort_qdq_uint8",
)
STRICT = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-Werror")

CHECK = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "net.h"

static int tasks_seen;
static int in_turn(void *context, int tasks, net_task task, void *state) {
  int code = 0;
  for (int i = tasks - 1; i >= 0; --i) code |= task(state, i);
  tasks_seen = tasks;
  return context ? 17 : code;
}
static int too_far(void *context, int tasks, net_task task, void *state) { (void)context; return task(state, tasks); }

static void expect(const char *what, int code, int wanted) {
  if (code != wanted) printf("%s: %s\n", what, net_error(code)), exit(1);
}

/* check INPUT... OUTPUT...: arrays one float off the alignment, a workspace full of rubbish and not a byte too large */
int main(int argc, char **argv) {
  static const size_t sizes[] = {SIZES};
  const float *in[NET_INPUTS];
  float *out[NET_OUTPUTS], *data[NET_INPUTS + NET_OUTPUTS];
  if (argc != 1 + NET_INPUTS + NET_OUTPUTS) return 2;
  for (int i = 0; i < NET_INPUTS + NET_OUTPUTS; ++i) {
    data[i] = (float *)aligned_alloc(64, (4 * sizes[i] + 4 + 63) / 64 * 64) + 1;
    if (i < NET_INPUTS) {
      FILE *f = fopen(argv[1 + i], "rb");
      if (!f || fread(data[i], 4, sizes[i], f) != sizes[i]) return 3;
      fclose(f);
      in[i] = data[i];
    } else out[i - NET_INPUTS] = data[i];
  }
  for (int tasks = 1; tasks <= 3; ++tasks) {
    size_t bytes = NET_WORKSPACE_BYTES(tasks);
    unsigned char *workspace = aligned_alloc(64, bytes);
    for (int run = 0; run < 2; ++run) {
      memset(workspace, 0xA5 + run, bytes);
      if (tasks == 1) expect("run", net_run(in, out, workspace, bytes), NET_OK);
      else expect("parallel", net_run_parallel(in, out, workspace, bytes, tasks, in_turn, 0), NET_OK);
      for (int i = 0; i < NET_OUTPUTS; ++i) {
        char name[4096];
        snprintf(name, sizeof name, "%s.%d.%d", argv[1 + NET_INPUTS + i], tasks, run);
        FILE *f = fopen(name, "wb");
        if (!f || fwrite(out[i], 4, sizes[NET_INPUTS + i], f) != sizes[NET_INPUTS + i]) return 4;
        fclose(f);
      }
    }
    if (tasks == 2) {
      expect("one byte less", net_run_parallel(in, out, workspace, bytes - 1, 2, in_turn, 0), NET_ERROR_WORKSPACE_SIZE);
      expect("misaligned", net_run(in, out, workspace + 1, bytes), NET_ERROR_WORKSPACE_ALIGNMENT);
      expect("no workspace", net_run(in, out, 0, bytes), NET_ERROR_NULL);
      expect("no inputs", net_run(0, out, workspace, bytes), NET_ERROR_NULL);
      expect("no threads", net_run_parallel(in, out, workspace, bytes, 2, 0, 0), NET_ERROR_TASKS);
      expect("no task", net_run_parallel(in, out, workspace, bytes, 0, in_turn, 0), NET_ERROR_TASKS);
      if (tasks_seen) {
        expect("a pool that fails", net_run_parallel(in, out, workspace, bytes, 2, in_turn, in), NET_ERROR_PARALLEL);
        expect("a task too many", net_run_parallel(in, out, workspace, bytes, 2, too_far, 0), NET_ERROR_PARALLEL);
      }
      in[0] = 0;
      expect("a null input", net_run(in, out, workspace, bytes), NET_ERROR_NULL);
      in[0] = data[0];
      expect("right again", net_run(in, out, workspace, bytes), NET_OK);
    }
    free(workspace);
  }
  for (int i = 0; i < NET_INPUTS + NET_OUTPUTS; ++i) free(data[i] - 1);
  printf("%d\n", tasks_seen);
  return 0;
}
"""


def cc(*words) -> None:
    done = subprocess.run(["gcc", "-std=c11", "-Wall", "-Wextra", *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def run(*words) -> str:
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def reference(bundle, seed: int = 0) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Random inputs of one sample, and the bundle's outputs."""
    rng = np.random.default_rng(seed)
    inputs = [rng.normal(0, 1.5, port.shape).astype(np.float32) for port in bundle.inputs]
    found = bundle.run({p.name: x for p, x in zip(bundle.inputs, inputs)})
    return inputs, [found[p.name] for p in bundle.outputs] if isinstance(found, dict) else [found]


@pytest.mark.parametrize("model", MODELS)
def test_the_library_computes_what_the_bundle_does(model, tmp_path):
    source = DATA / f"{model}.onnx"
    mp.compile(source, target="x86-64-v3", output=tmp_path / "m.mpc")
    made = export_c(source, "x86-64-v3", tmp_path / "c", name="net", flags=STRICT)
    with mp.open_bundle(tmp_path / "m.mpc", threads=1) as bundle:
        inputs, outputs = reference(bundle)
        sizes = [prod(p.shape) for p in (*bundle.inputs, *bundle.outputs)]
    for i, x in enumerate(inputs):
        x.tofile(tmp_path / f"in{i}")
    (tmp_path / "check.c").write_text(CHECK.replace("SIZES", ", ".join(map(str, sizes))))
    cc(
        "-O1",
        "-g",
        STRICT[0],
        "-o",
        tmp_path / "check",
        tmp_path / "check.c",
        f"-I{made.folder}",
        made.folder / "libnet.a",
        "-lm",
    )
    run(
        tmp_path / "check",
        *(tmp_path / f"in{i}" for i in range(len(inputs))),
        *(tmp_path / f"out{i}" for i in range(len(outputs))),
    )
    for i, wanted in enumerate(outputs):
        for form in ("1.0", "1.1", "2.0", "2.1", "3.0", "3.1"):
            assert (tmp_path / f"out{i}.{form}").read_bytes() == wanted.tobytes()


def test_two_models_in_one_program(tmp_path):
    """And the header from C++."""
    for name, model in (("first", "brevitas_residual_w3a4"), ("second", "brevitas_concat")):
        export_c(DATA / f"{model}.onnx", "x86-64-v3", tmp_path / name, name=name)
        symbols = run("nm", "-g", "--defined-only", tmp_path / name / f"lib{name}.a")
        assert set(re.findall(r" [A-Z] (\S+)", symbols)) == {f"{name}_{f}" for f in ("run", "run_parallel", "error")}
    (tmp_path / "both.cpp").write_text(
        '#include "first.h"\n#include "second.h"\n#include <cstdio>\n'
        "int main() { return std::puts(first_error(FIRST_OK)) < 0 || second_run(0, 0, 0, 0) != SECOND_ERROR_NULL; }\n"
    )
    folders = [tmp_path / name for name in ("first", "second")]
    done = subprocess.run(
        [
            "g++",
            "-Wall",
            "-Werror",
            "-o",
            tmp_path / "both",
            tmp_path / "both.cpp",
            *(f"-I{f}" for f in folders),
            *(f / f"lib{f.name}.a" for f in folders),
            "-lm",
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert run(tmp_path / "both") == "no error\n"


def test_the_command_and_its_example(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(DATA / "brevitas_residual_w3a4.onnx", "my-Net.onnx")
    assert main(["compile", "my-Net.onnx", "--target", "x86-64-v3", "--format", "c"]) == 0
    assert "workspace" in capsys.readouterr().out
    assert {p.name for p in Path("my_net").iterdir()} == {"libmy_net.a", "my_net.h", "example.c", "CMakeLists.txt"}
    mp.compile("my-Net.onnx", target="x86-64-v3", output="m.mpc")
    with mp.open_bundle("m.mpc", threads=1) as bundle:
        (x,), (y,) = reference(bundle, 1)
    x.tofile("x.f32")
    cc("-DTHREADS", "-pthread", "-Werror", "-o", "example", "my_net/example.c", "-Imy_net", "my_net/libmy_net.a", "-lm")
    for threads in ("1", "3"):
        assert "median" in run("./example", "-t", threads, "-n", 3, "x.f32", "y.f32")
        assert Path("y.f32").read_bytes() == y.tobytes()
    for words, says in ((("x.f32",), "usage"), (("none", "y.f32"), "none"), (("-t", "x.f32", "y.f32"), "usage")):
        done = subprocess.run(["./example", *words], capture_output=True, text=True)
        assert done.returncode in (1, 2) and says in done.stderr


@pytest.mark.parametrize(
    "words, says",
    [
        (["--name", "9net"], "--name"),
        (["--name", "a b"], "--name"),
        (["--name", "string"], "net_string will do"),
        (["-o", "file"], "file"),
        (["--target", "x86-64"], "x86-64"),
    ],
)
def test_what_cannot_be_exported_is_one_line(tmp_path, capsys, monkeypatch, words, says):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("here before")
    code = main(["compile", str(DATA / "brevitas_concat.onnx"), "--format", "c", "-o", "out", *words])
    lines = capsys.readouterr().err.splitlines()
    assert code in (UsageError.exit_code, TargetError.exit_code) and len(lines) == 1 and says in lines[0]
    assert Path("file").read_text() == "here before" and not list(Path().glob("out/*"))


@pytest.mark.parametrize(
    "target, absent, says",
    [
        ("x86-64-v3", "ar", "needs ar: apt-get install gcc binutils"),
        (
            "rpi4b-32",
            "arm-linux-gnueabihf-gcc",
            "needs arm-linux-gnueabihf-gcc: apt-get install gcc-arm-linux-gnueabihf",
        ),
    ],
)
def test_missing_tools_are_named(tmp_path, monkeypatch, target, absent, says):
    monkeypatch.setattr(shutil, "which", lambda name: None if name == absent else f"/usr/bin/{name}")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(TargetError, match=says):
        export_c(DATA / "brevitas_concat.onnx", target, tmp_path / "c")


@pytest.mark.parametrize(
    "text, name",
    [("my-Net v2", "my_net_v2"), ("18layers", "net_18layers"), ("größe", "gr_e"), ("Signal", "net_signal")],
)
def test_names_from_files(text, name):
    assert identifier(text) == name


def test_a_name_that_leaves_nothing():
    with pytest.raises(UsageError, match="--name"):
        identifier("··")
