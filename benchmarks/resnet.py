"""Rows on ResNet-18 from end to end: against ONNX Runtime, over threads, memory; and what compiling and importing
cost."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from statistics import median

from benchmarks.compiled import Bench
from benchmarks.networks import Bits, calibration_image, resnet18
from benchmarks.onnxruntime_baseline import baselines
from benchmarks.row import Row
from mpcompile.latency.measure import measure
from mpcompile.targets import cpu

TARGETS = {Bits(1, 1): 2.5, Bits(1, 2): 1.8, Bits(2, 2): 1.2, Bits(8, 8): 0.95}
THREADS_TARGET, COMPILE_TARGET, IMPORT_TARGET, MEMORY_TARGET = 1.8, 15.0, 0.2, 2.0


def resnet_bundle(bench: Bench, bits: Bits, threads: int = 1):
    return bench.bundle(f"resnet18 {bits}", lambda: resnet18(bits), threads)


def end_to_end_rows(bench: Bench, rounds: int) -> list[Row]:
    """One thread, every network and both baselines in turn."""
    image = calibration_image(224)
    subjects = baselines(bench, "resnet18", resnet18)
    subjects |= {str(bits): resnet_bundle(bench, bits).timer(image) for bits in TARGETS}
    bench.say("measuring ResNet-18")
    found = measure(subjects, rounds=rounds)
    rows = []
    for bits, target in TARGETS.items():
        ours, note = found[str(bits)], f"fp32 {found.ratio('fp32', str(bits)):.1f}×"
        note = (
            f"{ours.seconds * 1e3:.2f} ms (spread {ours.spread:.1%}) against {found['int8'].seconds * 1e3:.2f}; {note}"
        )
        rows.append(
            Row(
                "ResNet-18 224², 1 thread, vs ONNX Runtime int8",
                str(bits),
                found.ratio("int8", str(bits)),
                "×",
                target,
                note,
                {"measurement": found.to_json()},
            )
        )
    return rows


def thread_rows(bench: Bench, rounds: int) -> list[Row]:
    """Two threads over one."""
    group = "ResNet-18, 2 threads over 1"
    if cpu.cores() < 2:
        return [Row(group, str(bits), None, "×", THREADS_TARGET, "this machine has one core") for bits in TARGETS]
    image, rows = calibration_image(224), []
    for bits in TARGETS:
        bench.say(f"measuring {bits} on 1 and 2 threads")
        found = measure(
            {str(n): resnet_bundle(bench, bits, n).timer(image) for n in (1, 2)}, rounds=rounds, max_rounds=6 * rounds
        )
        two = found["2"]
        if two.corrected > two.samples // 2:
            rows.append(
                Row(
                    group,
                    str(bits),
                    None,
                    "×",
                    THREADS_TARGET,
                    "other processes held a core in most samples: repeat on a quiet machine",
                )
            )
            continue
        rows.append(
            Row(
                group,
                str(bits),
                found.ratio("1", "2"),
                "×",
                THREADS_TARGET,
                f"{found['1'].seconds * 1e3:.2f} ms, {two.seconds * 1e3:.2f} ms (spread {two.spread:.1%})",
                {"measurement": found.to_json()},
            )
        )
    return rows


def memory_row(bench: Bench) -> Row:
    """Workspace over the largest set of activations that must be alive at once."""
    plan = resnet_bundle(bench, Bits(2, 2)).plan
    return Row(
        "peak activation memory",
        "ResNet-18 W2A2",
        plan.workspace_bytes / plan.live_bytes,
        "× bytes",
        MEMORY_TARGET,
        f"{plan.workspace_bytes / 1024:.0f} KiB, {plan.live_bytes / 1024:.0f} KiB alive at once",
    )


def compile_row(bench: Bench) -> Row:
    """`mpcompile compile` of ResNet-18 as a user runs it, in a process of its own."""
    source = bench.onnx("resnet18 W2A2", lambda: resnet18(Bits(2, 2)))
    command = [
        sys.executable,
        "-m",
        "mpcompile",
        "compile",
        str(source),
        "--target",
        bench.target,
        "-o",
        str(bench.folder / "timed.mpc"),
    ]
    bench.say("timing mpcompile compile")
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Row(
        "compile", "ResNet-18 W2A2, the whole command", seconds, "s", COMPILE_TARGET, f"{busy:.1f} s of CPU time"
    )


IMPORT = """
import json, sys, time
start = time.perf_counter()
import mpcompile
seconds = time.perf_counter() - start
print(json.dumps([seconds, [m for m in ("tvm", "torch", "onnx") if m in sys.modules]]))
"""


def import_row(times: int = 7) -> Row:
    """`import mpcompile` in fresh processes; what it must not load is looked for."""
    answers = [
        json.loads(subprocess.run([sys.executable, "-c", IMPORT], check=True, capture_output=True, text=True).stdout)
        for _ in range(times)
    ]
    loaded = sorted({m for _, modules in answers for m in modules})
    return Row(
        "import mpcompile",
        "a fresh process",
        median(s for s, _ in answers),
        "s",
        IMPORT_TARGET,
        f"it loads {', '.join(loaded)}" if loaded else "loads neither TVM nor torch nor onnx",
    )
