"""Runs with TVM 0.19: builds its bit-serial operator, checks it against numpy, and runs it when told to.

A line of JSON in, a line out:  {"build": [c, h, o, stride, k, w, a]} → {"built": {setting: seconds of a run}, "wrong":
[setting]}
                                {"run": setting, "of": "[c, …]", "n": n} → {"seconds": s}, without waiting for a core
"""

import json
import sys

import numpy as np
import tvm
from tvm import relay
from tvm.contrib import graph_executor

from benchmarks.tvm019_process import seconds, serve

DEFAULT = ("NCHW", "uint32")
SETTINGS = (DEFAULT, ("NCHW", "uint64"), ("NHWC", "uint8"), ("NHWC", "uint64"))
MCPU = sys.argv[1]


def build(c, h, o, stride, k, w, a, layout, pack):
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
    with tvm.transform.PassContext(opt_level=3):
        built = relay.build(tvm.IRModule.from_expr(y), target=f"llvm -mcpu={MCPU}")
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
    for layout, pack in SETTINGS:
        setting = f"{layout} {pack}"
        try:
            module, right = build(*asked["build"], layout, pack)
        except Exception as error:  # a setting that this version cannot build is no reason to lose the others
            failed.append(f"{setting}: {type(error).__name__}")
            continue
        if not right:
            wrong.append(setting)
            continue
        modules[json.dumps(asked["build"]), setting] = module
        found[setting] = min(seconds(module, 1) for _ in range(3))
    return {"built": found, "wrong": wrong, "failed": failed}


if __name__ == "__main__":
    serve(answer)
