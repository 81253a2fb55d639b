"""500 random networks over all operators that the documentation lists, in QDQ, QONNX and QOperator: no wrong number, no
refusal, no fault. `python -m tests.fuzz --only reads --count 10000` judges more."""

from collections import Counter

import onnx
import pytest

from tests.fuzz.kinds import ALL
from tests.fuzz.pool import judged
from tests.fuzz.reads import COMPILED

SEED, COUNT, PARTS = 2026, 500, 4


@pytest.mark.parametrize("part", range(PARTS))
def test_random_networks_are_read_as_others_compute_them(part):
    size = COUNT // PARTS
    outcomes = list(judged(ALL["reads"], ((SEED, i) for i in range(part * size, (part + 1) * size))))
    assert [(o.job, o.wrong) for o in outcomes if o.wrong] == []
    words = Counter(o.word for o in outcomes)
    assert words["equal"] == size // COMPILED and words["compared"] == size - words["equal"]


def test_they_have_every_operator_that_the_generator_knows():
    kind = ALL["reads"]
    models = [onnx.ModelProto.FromString(kind.make((SEED, i))) for i in range(400)]
    seen = {node.op_type for m in models for node in m.graph.node}
    assert seen >= {
        *("Conv", "ConvTranspose", "MatMul", "Gemm", "QLinearConv", "DepthToSpace", "SpaceToDepth"),
        *("Resize", "Pad", "Slice", "Split", "Gather", "Tile", "Where", "ArgMax", "Softmax", "LayerNormalization"),
        *("InstanceNormalization", "ReduceMean", "ReduceMax", "ReduceSum", "Mul", "Sub", "Max", "Min", "HardSwish"),
        *("Gelu", "Mish", "Erf", "Unsqueeze", "Squeeze", "IntQuant", "BipolarQuant"),
    }
