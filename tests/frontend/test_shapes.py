"""Sizes that a file leaves open, given by its user; what does not fit is refused in one line."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from mpcompile.cli.command_line import main
from mpcompile.errors import ModelError, UsageError
from mpcompile.frontend import graph_of, load
from mpcompile.reference.interpret import interpret
from tests.frontend.test_other_exporters import constant, node


def detector(folder, batch="batch"):
    """Two inputs that share open sizes, shapes that are computed from them, and value_info with the old names."""
    nodes = [
        node("Conv", ["image", "w"], ["c"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Shape", ["mask"], ["s"]),
        node("Slice", ["s", "two", "four"], ["hw"]),
        node("Shape", ["c"], ["cs"]),
        node("Slice", ["cs", "none", "two"], ["nc"]),
        node("Concat", ["nc", "hw"], ["t"], axis=0),
        node("Resize", ["c", "", "", "t"], ["u"], mode="nearest"),
        node("Mul", ["u", "mask"], ["y"]),
    ]
    w = np.random.default_rng(0).normal(0, 0.3, (2, 3, 3, 3))
    constants = [constant(w, "w"), *(constant([v], n, np.int64) for n, v in (("two", 2), ("four", 4), ("none", 0)))]
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, "height", "width"]),
            helper.make_tensor_value_info("mask", TensorProto.FLOAT, [batch, 1, "height", "width"]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 2, "height", "width"])],
        constants,
        value_info=[helper.make_tensor_value_info("c", TensorProto.FLOAT, [batch, 2, "half_height", "half_width"])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), folder / "m.onnx")
    return folder / "m.onnx"


def test_sizes_of_one_input_fix_what_has_the_same_name(tmp_path):
    import onnxruntime

    path = detector(tmp_path)
    graph = load(path, {"image": (1, 3, 8, 6)})
    assert graph.batch == 1
    assert [graph.types[t].shape for t in ("image", "mask", "y")] == [(3, 8, 6), (1, 8, 6), (2, 8, 6)]
    rng = np.random.default_rng(1)
    x = {n: rng.standard_normal((c, 8, 6), np.float32) for n, c in (("image", 3), ("mask", 1))}
    theirs = onnxruntime.InferenceSession(str(path)).run(None, {n: a[None] for n, a in x.items()})[0][0]
    np.testing.assert_allclose(interpret(graph, x)["y"], theirs, rtol=1e-5, atol=1e-6)


def test_the_message_that_refuses_open_sizes_says_what_mends_it(tmp_path):
    with pytest.raises(ModelError, match=r"dimension 2 \(height\).* accepted: --shape image=1x3xHxW would fix it$"):
        load(detector(tmp_path))


REFUSED = {
    "unknown": ({"picture": (1, 3, 8, 6)}, "a shape for picture, which is no input of the model: it has image, mask"),
    "rank": (
        {"image": (3, 8, 6)},
        r"the shape 3x8x6 of input image has 3 axes, the model's has 4 \(batchx3xheightxwidth\)",
    ),
    "fixed": ({"image": (1, 4, 8, 6)}, "axis 1 of input image is 3 in the model, not 4"),
    "apart": (
        {"image": (1, 3, 8, 6), "mask": (1, 1, 8, 7)},
        "width is 6 by the shape of input image and 7 by that of input mask; one size would be accepted",
    ),
    "zero": ({"image": (1, 3, 0, 6)}, "the shape of input image is 1x3x0x6; whole sizes from 1 would be accepted"),
    "no number": ({"image": (1, 3, 8.5, 6)}, "the shape of input image is 1x3x8.5x6; whole sizes"),
    "none": ({"image": ()}, "the shape of input image is empty; whole sizes"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_shapes_that_do_not_fit(tmp_path, case):
    shapes, said = REFUSED[case]
    with pytest.raises(UsageError, match=f"^{said}"):
        load(detector(tmp_path), shapes)


def test_numpys_integers_are_sizes(tmp_path):
    graph = load(detector(tmp_path), {"image": np.array([1, 3, 8, 6]), "mask": np.array([1, 1, 8, 6])})
    assert graph.types["y"].shape == (2, 8, 6)


def test_a_graph_has_its_shapes(tmp_path):
    graph = load(detector(tmp_path), {"image": (1, 3, 8, 6)})
    assert graph_of(graph) is graph
    with pytest.raises(UsageError, match="shapes are of a file; the graph's inputs have theirs: image"):
        graph_of(graph, {"image": (1, 3, 8, 6)})


def test_on_the_command_line(tmp_path, capsys):
    path = detector(tmp_path)
    assert main(["inspect", str(path)]) == 3
    assert "--shape image=1x3xHxW would fix it" in capsys.readouterr().err
    assert main(["inspect", str(path), "--shape", "image=1x3x16x12"]) == 0
    assert "input mask: float32 (1, 16, 12)" in capsys.readouterr().out


@pytest.mark.parametrize("given", ["image", "image=", "=1x3", "image=1x3xHxW", "image=1x-3", "image=1X3"])
def test_what_is_no_shape_on_the_command_line(tmp_path, capsys, given):
    assert main(["inspect", str(detector(tmp_path)), "--shape", given]) == 2
    assert f"--shape {given}: the name of an input and its sizes would be accepted" in capsys.readouterr().err


def test_two_shapes_for_one_input(tmp_path, capsys):
    options = ["--shape", "image=1x3x8x6", "--shape", "image=1x3x8x8"]
    assert main(["inspect", str(detector(tmp_path)), *options]) == 2
    assert "--shape image=1x3x8x8: the input has a shape already" in capsys.readouterr().err


def test_a_bundle_has_its_shapes(tmp_path, capsys):
    assert main(["inspect", str(tmp_path / "m.mpc"), "--shape", "x=1x3"]) == 2
    assert "--shape is of a MODEL.onnx: a bundle's inputs have their shapes" in capsys.readouterr().err
