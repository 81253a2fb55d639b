"""Runs with TVM 0.19: builds its bit-serial operator, checks it against numpy, and runs it when told to.

A line of JSON in, a line out:  {"build": [c, h, o, stride, k, w, a], "trials": n} → {"built": {setting: seconds of a run},
"wrong": [setting]}; with trials, the fastest setting's schedule is searched by autotvm, and is a setting of its own
                                {"run": setting, "of": "[c, …]", "n": n} → {"seconds": s}, without waiting for a core
"""

import json
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import tvm
from tvm import autotvm, relay
from tvm.contrib import graph_executor

from benchmarks.tvm019_process import seconds, serve

DEFAULT = ("NCHW", "uint32")
SETTINGS = (DEFAULT, ("NCHW", "uint64"), ("NHWC", "uint8"), ("NHWC", "uint64"))
MCPU = sys.argv[1]


def tune(mod, target, trials, log):
    """Searches the schedule of its bit-serial operator by autotvm's genetic tuner. Most of the schedules in the space of
    0.19's templates cannot be built; each is a trial."""
    (task,) = [t for t in autotvm.task.extract_from_program(mod, {}, target) if "bitserial" in t.name]
    runner = autotvm.LocalRunner(number=1, repeat=3, min_repeat_ms=10, timeout=10)
    options = autotvm.measure_option(autotvm.LocalBuilder(n_parallel=1, timeout=10), runner)
    autotvm.tuner.GATuner(task, pop_size=16).tune(trials, options, callbacks=[autotvm.callback.log_to_file(log)])


def build(c, h, o, stride, k, w, a, layout, pack, trials=0):
    """The operator with constant weights over unpacked codes, as its users write it; the module, and whether it is
    right."""
    pad, rng = k // 2, np.random.default_rng(0)
    x, weight = rng.integers(0, 1 << a, (c, h, h)), rng.integers(0, 1 << w, (o, c, k, k))
    nchw = layout == "NCHW"
    data = (x if nchw else x.transpose(1, 2, 0))[None].astype("int16")
    kernel = (weight if nchw else weight.transpose(2, 3, 1, 0)).astype("int16")
    y = relay.nn.bitserial_conv2d(
        relay.var("x", shape=data.shape, dtype="int16"),
        relay.const(kernel),
        strides=(stride, stride),
        padding=(pad, pad),
        channels=o,
        kernel_size=(k, k),
        activation_bits=a,
        weight_bits=w,
        data_layout=layout,
        pack_dtype=pack,
        out_dtype="int16",
        unipolar=False,
    )
    mod, target = tvm.IRModule.from_expr(y), tvm.target.Target(f"llvm -mcpu={MCPU}")
    with tempfile.TemporaryDirectory(prefix="mpcompile-bench-") as folder:
        log = str(Path(folder) / "log.json")
        if trials:
            tune(mod, target, trials, log)
        with (
            autotvm.apply_history_best(log) if trials else nullcontext(),
            tvm.transform.PassContext(opt_level=3),
        ):
            built = relay.build(mod, target=target)
    module = graph_executor.GraphModule(built["default"](tvm.cpu()))
    module.set_input("x", data)
    module.run()
    out = module.get_output(0).numpy()[0]
    out = out if nchw else out.transpose(2, 0, 1)
    n = out.shape[1]
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
    expected = sum(
        np.tensordot(
            weight[:, :, i, j], padded[:, i : i + stride * n : stride, j : j + stride * n : stride][:, :n, :n], 1
        )
        for i in range(k)
        for j in range(k)
    )
    return module, bool((out == expected.astype("int16")).all())


modules = {}


def answer(asked):
    if "build" not in asked:
        return {"seconds": seconds(modules[asked["of"], asked["run"]], asked["n"])}
    found, wrong, failed = {}, [], []

    def add(layout, pack, trials=0):
        setting = f"{layout} {pack}" + (f", {trials} trials" if trials else "")
        try:
            module, right = build(*asked["build"], layout, pack, trials)
        except Exception as error:  # a setting that this version cannot build is no reason to lose the others
            failed.append(f"{setting}: {type(error).__name__}: {error}")
            return
        if not right:
            wrong.append(setting)
            return
        modules[json.dumps(asked["build"]), setting] = module
        found[setting] = min(seconds(module, 1) for _ in range(3))

    for layout, pack in SETTINGS:
        add(layout, pack)
    if found and asked.get("trials"):
        add(*min(found, key=found.get).split(), asked["trials"])
    return {"built": found, "wrong": wrong, "failed": failed}


if __name__ == "__main__":
    serve(answer)
