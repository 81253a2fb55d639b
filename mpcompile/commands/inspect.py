"""mpcompile inspect M.mpc | MODEL.onnx"""

from __future__ import annotations

import argparse

from mpcompile import console


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="M.mpc|MODEL.onnx")
    parser.add_argument(
        "--target", default="native", metavar="T", help="the board that a model's expected families are for"
    )


def work(args: argparse.Namespace) -> dict:
    return _model(args.file, args.target) if args.file.endswith(".onnx") else _bundle(args.file)


def _bundle(path: str) -> dict:
    from mpcompile.commands._layers import layer_table
    from mpcompile.runtime.archive import read_manifest

    manifest = read_manifest(path)
    plan, members, target = manifest["plan"], manifest["members"], manifest["target"]
    console.say(
        f"{path}: {manifest['model']['source']} for {target['name']} ({target['description']}), by "
        f"mpcompile {manifest['mpcompile']} and TVM {manifest['tvm']}"
    )
    _ports(plan["inputs"], plan["outputs"])
    layer_table(manifest["layers"])
    console.say(
        f"library {console.size(members['lib.so']['bytes'])}, weights {console.size(members['weights.bin']['bytes'])}, "
        f"workspace {console.size(plan['workspace_bytes'])} (alive at once {console.size(plan['live_bytes'])}), "
        f"{len(plan['calls'])} calls"
    )
    return {key: value for key, value in manifest.items() if key != "plan"} | {
        "inputs": plan["inputs"],
        "outputs": plan["outputs"],
        "calls": len(plan["calls"]),
        "workspace_bytes": plan["workspace_bytes"],
        "live_bytes": plan["live_bytes"],
    }


def _model(path: str, target: str) -> dict:
    from mpcompile.commands._layers import layer_table
    from mpcompile.commands._graph_rows import graph_rows
    from mpcompile.compiler.passes.base import apply_all
    from mpcompile.compiler.passes.to_layers import TO_LAYERS
    from mpcompile.frontend import load
    from mpcompile.targets import load_target

    board = load_target(target)
    graph = load(path)
    rows = graph_rows(apply_all(graph, TO_LAYERS), board)
    inputs, outputs = (
        [{"name": t, "shape": list(graph.types[t].shape), "dtype": "float32"} for t in names]
        for names in (graph.inputs, graph.outputs)
    )
    console.say(f"{path}: families as expected on {board.name} ({board.description}), before formats are weighed")
    _ports(inputs, outputs)
    layer_table(rows)
    macs = sum(row.get("macs", 0) for row in rows)
    console.say(f"{len(rows)} layers, {console.count(macs)} multiply-accumulates in quantized layers")
    return {"model": path, "target": board.name, "inputs": inputs, "outputs": outputs, "layers": rows, "macs": macs}


def _ports(inputs: list[dict], outputs: list[dict]) -> None:
    for kind, ports in (("input", inputs), ("output", outputs)):
        for port in ports:
            console.say(f"{kind} {port['name']}: {port['dtype']} {tuple(port['shape'])}")
