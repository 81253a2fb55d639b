"""Relay modules for a board of another architecture: cross-linked, and run there over TVM 0.19's own RPC. Needs what
`make test-relay RELAY=arm` sets up."""

from pathlib import Path

import numpy as np
import tvm
from tvm import relay, rpc
from tvm.contrib import graph_executor

from mpcompile.relay import BitSerialize
from mpcompile.targets import load_target
from mpcompile.tvm_frontend.relay.command import build, tvm_target
from tests.arm.rpc_server import PYARM, rpc_session
from tests.relay.modules import conv, integers, quantized, run
from tests.relay.test_pass import layer, module

X = integers((2, 4, 6, 6))


def on_the_board(library: Path, folder: Path) -> np.ndarray:
    folder.mkdir()
    with rpc_session(rpc.connect, "cortex-a72", PYARM.parent / "relay", folder) as session:
        session.upload(str(library))
        machine = graph_executor.GraphModule(session.load_module(library.name)["default"](session.cpu()))
        machine.set_input("x0", tvm.nd.array(X, session.cpu()))
        machine.run()
        return machine.get_output(0).numpy()


def test_a_network_that_is_one_region(tmp_path):
    """As the command line links it: TVM has no kernel in it that says for what it is compiled."""
    mod = module(layer, X.shape)
    build(mod, "rpi4b", None, tmp_path / "net.so", [])
    np.testing.assert_array_equal(on_the_board(tmp_path / "net.so", tmp_path / "board"), run(mod, X)[0])


def test_a_region_beside_kernels_of_tvm(tmp_path):
    """As TVM's documentation cross-links: by the compiler's name."""
    mod = module(lambda rng, x: relay.cumsum(conv(rng, quantized(x), 4, 8), axis=2), X.shape)
    new = BitSerialize("rpi4b", say=None)(mod)
    built = relay.build(new, target=tvm.target.Target(tvm_target(load_target("rpi4b"))))
    built.export_library(str(tmp_path / "net.so"), cc="aarch64-linux-gnu-gcc")
    np.testing.assert_array_equal(on_the_board(tmp_path / "net.so", tmp_path / "board"), run(mod, X)[0])
