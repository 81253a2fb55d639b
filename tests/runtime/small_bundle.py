"""A small bundle without the compiler: y = 2x + b, then z = y·y, from two TE functions and a plan by hand."""

import numpy as np

from mpcompile.ir.formats import Buffer
from mpcompile.ir.plan import Arg, Call, Placed, Plan, Port
from mpcompile.runtime import CompiledVariant, write_bundle
from mpcompile.targets import cpu

SHAPE = (4, 8, 8)


def small_library(folder, parallel=True) -> bytes:
    import tvm
    from tvm import te

    x, b = te.placeholder(SHAPE, "float32", name="x"), te.placeholder((4,), "float32", name="b")
    y = te.compute(SHAPE, lambda c, i, j: x[c, i, j] * 2.0 + b[c], name="y")
    u = te.placeholder(SHAPE, "float32", name="u")
    z = te.compute(SHAPE, lambda c, i, j: u[c, i, j] * u[c, i, j], name="z")
    functions = {"scale": te.create_prim_func([x, b, y]), "square": te.create_prim_func([u, z])}
    module = tvm.IRModule({n: f.with_attr("global_symbol", n) for n, f in functions.items()})
    if parallel:
        schedule = tvm.s_tir.Schedule(module)
        for name in functions:
            schedule.work_on(name)
            block = schedule.get_sblock("y" if name == "scale" else "z")
            schedule.parallel(schedule.get_loops(block)[0])
        module = schedule.mod
    executable = tvm.compile(module, target=tvm.target.Target({"kind": "llvm", "mcpu": "x86-64-v2"}))
    executable.export_library(str(folder / "lib.so"))
    return (folder / "lib.so").read_bytes()


def small_plan() -> Plan:
    nbytes = int(np.prod(SHAPE)) * 4
    x, y, z = (
        Arg("input", 0, "float32", SHAPE),
        Arg("workspace", 0, "float32", SHAPE),
        Arg("output", 0, "float32", SHAPE),
    )
    bias = Arg("weights", 64, "float32", (4,))
    return Plan(
        (Port("x", SHAPE),),
        (Port("z", SHAPE),),
        (Call("scale", "first", (x, bias, y)), Call("square", "second", (y, z))),
        (
            Placed(Buffer("x", "plain", SHAPE), x, -1, 0),
            Placed(Buffer("y", "plain", SHAPE), y, 0, 1),
            Placed(Buffer("z", "plain", SHAPE), z, 1, 1),
        ),
        nbytes,
        2 * nbytes,
    )


BIAS = np.array([0.5, -1.0, 2.0, 3.25], np.float32)


def small_weights() -> bytes:
    return bytes(64) + BIAS.tobytes()


def small_target(name="x86-64-v2", **changes) -> dict:
    return {
        "name": name,
        "description": "small",
        "arch": cpu.arch(),
        "features": ["sse4_2"],
        "tvm": {"kind": "llvm", "mcpu": "x86-64-v2"},
        **changes,
    }


def small_variant(library: bytes, **changes) -> CompiledVariant:
    layers = [{"name": name, "op": "Layer", "shape": list(SHAPE), "outputs": []} for name in ("first", "second")]
    fields = {
        "target": small_target(),
        "plan": small_plan(),
        "layers": layers,
        "library": library,
        "weights": small_weights(),
    }
    return CompiledVariant(**fields | changes)


def write_small(path, *variants: CompiledVariant):
    head = {"target": {"name": "small", "description": "small"}, "model": {"source": "small.onnx"}}
    return write_bundle(path, head, variants)
