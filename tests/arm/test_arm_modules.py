"""Relax modules for a board of another architecture: cross-linked, and run there over TVM's own RPC."""

import numpy as np
import onnx
import pytest
import tvm
from tvm import relax, rpc

from mpcompile.cli import main
from mpcompile.relax import from_onnx
from tests.arm.board import ROOT, installed
from tests.arm.rpc_server import rpc_session


@pytest.mark.quick
def test_a_library_through_relax(tmp_path):
    """By the command line: all of the network is ours, so that TVM has no kernel that says for what it is compiled."""
    model = ROOT / "tests" / "data" / "brevitas_cnn_w2a2.onnx"
    assert main(["compile", str(model), "--ir", "relax", "--target", "rpi4b", "-o", str(tmp_path / "net.so")]) == 0
    mod = from_onnx(onnx.load(model), keep_params_in_input=False)
    (parameter,) = mod["main"].params
    x = np.random.default_rng(0).normal(size=[int(n) for n in parameter.ty.shape.values]).astype(np.float32)
    folder = tmp_path / "board"
    folder.mkdir()
    assert main(["compile", str(model), "--ir", "relax", "-o", str(tmp_path / "here.so")]) == 0
    here = relax.VirtualMachine(tvm.runtime.load_module(str(tmp_path / "here.so")), tvm.cpu())
    wanted = here["main"](tvm.runtime.tensor(x)).numpy()
    with rpc_session(rpc.connect, "cortex-a72", installed(), folder) as session:
        session.upload(str(tmp_path / "net.so"))
        device = session.cpu()
        machine = relax.VirtualMachine(session.load_module("net.so"), device)
        machine.set_input("main", tvm.runtime.tensor(x, device))
        machine.invoke_stateful("main")
        np.testing.assert_array_equal(machine.get_outputs("main").numpy(), wanted)
