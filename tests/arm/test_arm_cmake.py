"""Exported networks in CMake projects, as users build them: the example by itself, and two networks in one application,
in C++ as well; natively, and through a cross toolchain under QEMU."""

import subprocess
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import mpcompile as mp
from mpcompile.targets import load_target
from tests.arm.emulator import TOOLS, emulated_core, temporary
from tests.compile.test_c_export import reference
from tests.patience import PATIENCE

pytestmark = pytest.mark.quick
DATA = Path(__file__).parents[1] / "data"
NETWORKS = {"one": "hand_half_integer", "example": "brevitas_residual_w3a4"}
"""Name → model. `example` is also what CMakeLists.txt calls its program."""
BOARDS = ("x86-64-v3", "rpi4b")

APPLICATION = r"""
#define _POSIX_C_SOURCE 200112L
#include <stdio.h>
#include <stdlib.h>
#include "one.h"
#include "example.h"

static float in_one[ONE_INPUT_0_SIZE], out_one[ONE_OUTPUT_0_SIZE];
static float in_example[EXAMPLE_INPUT_0_SIZE], out_example[EXAMPLE_OUTPUT_0_SIZE];

static void transfer(const char *path, float *data, size_t count, int writing) {
  FILE *file = fopen(path, writing ? "wb" : "rb");
  if (!file || (writing ? fwrite(data, 4, count, file) : fread(data, 4, count, file)) != count || fclose(file)) exit(3);
}

/* app INPUT INPUT OUTPUT OUTPUT: both networks on one workspace */
int main(int argc, char **argv) {
  const float *in[2] = {in_one, in_example};
  float *out[2] = {out_one, out_example};
  size_t one = ONE_WORKSPACE_BYTES(1), example = EXAMPLE_WORKSPACE_BYTES(1), bytes = one > example ? one : example;
  void *workspace;
  if (argc != 5 || posix_memalign(&workspace, ONE_WORKSPACE_ALIGNMENT, bytes)) return 2;
  transfer(argv[1], in_one, ONE_INPUT_0_SIZE, 0);
  transfer(argv[2], in_example, EXAMPLE_INPUT_0_SIZE, 0);
  if (one_run(&in[0], &out[0], workspace, bytes) != ONE_OK) return 4;
  if (example_run(&in[1], &out[1], workspace, bytes) != EXAMPLE_OK) return 5;
  transfer(argv[3], out_one, ONE_OUTPUT_0_SIZE, 1);
  transfer(argv[4], out_example, EXAMPLE_OUTPUT_0_SIZE, 1);
  free(workspace);
  return 0;
}
"""
PROJECT = """cmake_minimum_required(VERSION 3.13)
project(application @language@)
add_subdirectory("@one@" networks/one)
add_subdirectory("@example@" networks/example)
add_executable(one @source@)
target_compile_options(one PRIVATE -Wall -Wextra -Werror)
target_link_libraries(one PRIVATE mpcompile::one mpcompile::example)
"""
"""The application bears the name of one of its networks."""


@cache
def sample(name: str) -> tuple[np.ndarray, np.ndarray]:
    """An input of the network, and what the x86 bundle makes of it."""
    path = mp.compile(DATA / f"{NETWORKS[name]}.onnx", "x86-64-v3", temporary() / "m.mpc")
    with mp.open_bundle(path, threads=1) as bundle:
        (x,), (y,) = reference(bundle)
    return x, y


@cache
def exported(name: str, board: str) -> Path:
    """The folder of a network: named as NETWORKS has it, in a folder of folders with a blank."""
    folder = temporary() / "c libraries" / name
    folder.parent.mkdir()
    return mp.export_c(DATA / f"{NETWORKS[name]}.onnx", board, folder, name=name).folder


def built(source: Path, folder: Path, board: str) -> Path:
    arch = load_target(board).arch
    cross = [] if arch == "x86_64" else [f"-DCMAKE_C_COMPILER={TOOLS[arch][0]}", "-DCMAKE_SYSTEM_NAME=Linux"]
    for command in (["cmake", "-S", source, "-B", folder, "-Werror=dev", *cross], ["cmake", "--build", folder]):
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder


def run(board: str, *words) -> None:
    target = load_target(board)
    emulator = (
        []
        if target.arch == "x86_64"
        else [TOOLS[target.arch][1], "-L", "/usr/aarch64-linux-gnu", "-cpu", emulated_core(target)]
    )
    done = subprocess.run([*emulator, *map(str, words)], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("board", BOARDS)
def test_the_example(board, tmp_path):
    x, y = sample("example")
    folder = built(exported("example", board), tmp_path / "build here", board)
    x.tofile(tmp_path / "x")
    run(board, folder / "example", "-t", 3, tmp_path / "x", tmp_path / "y")
    assert (tmp_path / "y").read_bytes() == y.tobytes()


@pytest.mark.parametrize("board, language", [("x86-64-v3", "CXX"), ("rpi4b", "C")])
def test_two_networks_in_one_application(board, language, tmp_path):
    """A project in C++ need not know C."""
    text, source = PROJECT, {"C": "app.c", "CXX": "app.cpp"}[language]
    for mark, value in ({"language": language, "source": source} | {n: exported(n, board) for n in NETWORKS}).items():
        text = text.replace(f"@{mark}@", str(value))
    (tmp_path / "CMakeLists.txt").write_text(text)
    (tmp_path / source).write_text(APPLICATION)
    folder = built(tmp_path, tmp_path / "build", board)
    for name in NETWORKS:
        sample(name)[0].tofile(tmp_path / f"{name}.x")
    run(board, folder / "one", *(tmp_path / f"{name}.{port}" for port in "xy" for name in NETWORKS))
    for name in NETWORKS:
        assert (tmp_path / f"{name}.y").read_bytes() == sample(name)[1].tobytes()
