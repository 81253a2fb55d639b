"""mpcompile inspect M.mpc | MODEL.onnx"""

from __future__ import annotations

import argparse

from mpcompile.cli import console, shape_option


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="M.mpc|MODEL.onnx")
    shape_option.arguments(parser)
    parser.add_argument(
        "--target", default="native", metavar="T", help="the board that a model's expected families are for"
    )


def work(args: argparse.Namespace) -> dict:
    from mpcompile.errors import UsageError

    shapes = shape_option.shapes(args)
    if args.file.endswith(".onnx"):
        return _model(args.file, args.target, shapes)
    if shapes:
        raise UsageError("--shape is of a MODEL.onnx: a bundle's inputs have their shapes")
    return _bundle(args.file)


def _bundle(path: str) -> dict:
    from mpcompile.cli.layer_table import float_table, layer_table
    from mpcompile.runtime.archive import read_manifest
    from mpcompile.runtime.variants import variants_of

    manifest = read_manifest(path)
    variants = variants_of(path, manifest)
    members, target = manifest["members"], manifest["target"]
    console.say(
        f"{path}: {manifest['model']['source']} for {target['name']} ({target['description']}), by "
        f"mpcompile {manifest['mpcompile']} and TVM {manifest['tvm']}"
    )
    plan = variants[0].plan.to_json()
    _ports(plan["inputs"], plan["outputs"])
    rows = []
    for v in variants:
        if len(variants) > 1:
            console.say(f"\n{v.name}: {v.target['description']}")
        layer_table(v.layers)
        library, weights = members[v.library]["bytes"], [members[name]["bytes"] for name in v.weights]
        console.say(
            f"library {console.size(library)}, weights {console.size(sum(weights))}, "
            f"workspace {console.size(v.plan.workspace_bytes)} (alive at once {console.size(v.plan.live_bytes)}), "
            f"{len(v.plan.calls)} calls"
        )
        rows.append(
            {
                "target": v.target,
                "layers": v.layers,
                "calls": len(v.plan.calls),
                "library_bytes": library,
                "weights_bytes": sum(weights),
                "workspace_bytes": v.plan.workspace_bytes,
                "live_bytes": v.plan.live_bytes,
                "runs_here": v.fits,
            }
        )
    float_table(variants[0].layers)
    if len(variants) > 1:
        _variants(path, variants, members)
    return manifest | {"inputs": plan["inputs"], "outputs": plan["outputs"], "variants": rows}


def _variants(path: str, variants: list, members: dict) -> None:
    """Which this CPU would run, and what the file holds for each."""
    from mpcompile.errors import TargetError
    from mpcompile.runtime.variants import pick

    try:
        best = pick(path, variants).name
    except TargetError:
        best = ""
    readers = [name for v in variants for name in v.weights]
    console.say("")
    console.table(
        ("variant", ">library", ">weights", ">of them shared", "on this CPU"),
        [
            (
                v.name,
                console.size(members[v.library]["bytes"]),
                console.size(sum(members[n]["bytes"] for n in v.weights)),
                console.size(sum(members[n]["bytes"] for n in v.weights if readers.count(n) > 1)),
                "is what runs"
                if v.name == best
                else "would run"
                if v.fits
                else f"lacks {', '.join(v.missing[:4])}"
                if v.missing
                else v.arch,
            )
            for v in variants
        ],
    )


def _model(path: str, target: str, shapes: dict[str, list[int]]) -> dict:
    from mpcompile.cli.graph_rows import graph_rows
    from mpcompile.cli.layer_table import float_table, layer_table
    from mpcompile.compiler.passes.base import apply_all
    from mpcompile.compiler.passes.to_layers import TO_LAYERS
    from mpcompile.frontend import load
    from mpcompile.targets import load_target

    board = load_target(target)
    graph = load(path, shapes)
    rows = graph_rows(apply_all(graph, TO_LAYERS), board)
    inputs, outputs = (
        [{"name": t, "shape": list(graph.types[t].shape), "dtype": graph.dtypes.get(t, "float32")} for t in names]
        for names in (graph.inputs, graph.outputs)
    )
    console.say(f"{path}: families as expected on {board.name} ({board.description}), before formats are weighed")
    _ports(inputs, outputs)
    layer_table(rows)
    float_table(rows)
    macs = sum(row.get("macs", 0) for row in rows)
    console.say(f"{len(rows)} layers, {console.count(macs)} multiply-accumulates in quantized layers")
    return {"model": path, "target": board.name, "inputs": inputs, "outputs": outputs, "layers": rows, "macs": macs}


def _ports(inputs: list[dict], outputs: list[dict]) -> None:
    for kind, ports in (("input", inputs), ("output", outputs)):
        for port in ports:
            console.say(f"{kind} {port['name']}: {port['dtype']} {tuple(port['shape'])}")
