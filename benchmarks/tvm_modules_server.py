"""Runs with TVM 0.19: builds a model through Relay, as it is or after BitSerialize, and runs it when told to.

A line of JSON in, a line out:  {"build": name, "model": path, "target": board, "rewritten": bool, "x": .npz of inputs,
                                 "y": path} → {}, and the outputs in y, output0.npy and so on
                                {"run": name, "n": n} → {"seconds": s}, without waiting for a core
"""

from pathlib import Path

import numpy as np
import tvm
from tvm import relay
from tvm.contrib import graph_executor

from benchmarks.tvm019_process import seconds, serve
from mpcompile.relay import BitSerialize
from mpcompile.targets import load_target
from mpcompile.tvm_frontend.relay.command import read, tvm_target

modules = {}


def build(name: str, model: str, target: str, rewritten: bool, x: str, y: str) -> dict:
    with np.load(x) as held:
        inputs = {key: held[key] for key in held}
    mod = read(Path(model), None, {key: list(array.shape) for key, array in inputs.items()})
    mod = BitSerialize(target, say=None)(mod) if rewritten else mod
    path = Path(y) / f"{name}.so"
    with tvm.transform.PassContext(opt_level=3):
        built = relay.build(mod, target=tvm.target.Target(tvm_target(load_target(target))))
    built.export_library(str(path))
    made = modules[name] = graph_executor.GraphModule(tvm.runtime.load_module(str(path))["default"](tvm.cpu()))
    for key, array in inputs.items():
        made.set_input(key, tvm.nd.array(array))
    made.run()
    for i in range(made.get_num_outputs()):
        np.save(Path(y) / f"output{i}.npy", made.get_output(i).numpy())
    return {}


def answer(asked: dict) -> dict:
    if "build" in asked:
        return build(asked.pop("build"), **asked)
    return {"seconds": seconds(modules[asked["run"]], asked["n"])}


if __name__ == "__main__":
    serve(answer)
