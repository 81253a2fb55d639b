"""Property: whatever the graph, the target and the family, every buffer that a bundle writes equals the reference's."""

import numpy as np
import pytest

from mpcompile.api.compile import compile_model
from mpcompile.api.verify import verify
from mpcompile.runtime.bundle import open_bundle
from tests.compile.plans import check_plan
from tests.kernels.harness import can_run
from tests.passes.random_graphs import random_graph

TARGETS = ["native", "x86-64-v2", "x86-64-v3", "x86-64-v4"]
FAMILIES = [None, "popcount", "dot"]
CASES = [(seed, 12, TARGETS[seed % 4], FAMILIES[seed // 4 % 3], seed >= 24) for seed in range(48)]
# Layers with several plain outputs, which transposes and concats read: TVM fuses those, and no name may get lost.
CASES += [(320, 18, "native", "dot", False), (326, 18, "x86-64-v4", None, False), (363, 18, "x86-64-v3", None, False)]


CASES = [(*case, False) for case in CASES]
CASES += [(seed, 12, TARGETS[seed % 4], FAMILIES[seed // 4 % 3], seed % 2 == 0, True) for seed in range(1000, 1010)]


@pytest.mark.parametrize("seed, operators, target, family, picking, moving", CASES)
def test_bundles_of_random_graphs_equal_the_reference(seed, operators, target, family, picking, moving, tmp_path):
    graph, inputs, _ = random_graph(seed, operators, picking, moving)
    path = compile_model(
        graph,
        target if can_run(target) else "native",
        tmp_path / "random.mpc",
        families={"*": family} if family else None,
    )
    rng = np.random.default_rng(seed)
    samples = {t: np.stack([x, (x * rng.choice([-1, 1, 3, 0], x.shape)).astype(np.float32)]) for t, x in inputs.items()}
    report = verify(graph, path, samples, threads=1)
    assert report.equal, f"{seed} for {target}, {family}: {report.summary}"
    with open_bundle(path, 1) as bundle:
        check_plan(bundle.plan)
        stored = {p.buffer.tensor for p in bundle.plan.buffers}
    assert stored >= set(graph.outputs)
