"""Operators that TVM's importer takes and then computes otherwise than ONNX says, or not at all, as ONNX's backend tests
found: they are refused, since the compiler would not notice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Shape = tuple[int, ...]

WITHOUT_CODE = ("Cosh", "Sinh")
"""Imported, and then without an instruction."""


def misread(model, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> str:
    """What TVM would do otherwise, "" where nothing is known. `model`: a ModelProto of one operator, or several that onnx
    wrote in its place; `inputs`, `outputs`: shapes without batch."""
    import onnx

    constants = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in WITHOUT_CODE:
            return "TVM makes no machine code of it"
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type == "IsInf" and not (
            attributes.get("detect_negative", 1) and attributes.get("detect_positive", 1)
        ):
            return "TVM's operator does not tell positive infinities from negative ones"
        if node.op_type in ("Resize", "Upsample"):
            scales = constants.get(node.input[2]) if len(node.input) > 2 else None
            return _resize(attributes, scales, inputs[0], outputs[0])
    return ""


def _resize(attributes: dict, scales: np.ndarray | None, before: Shape, after: Shape) -> str:
    """TVM resizes by the ratio of the two sizes, and takes every pixel as it is."""
    if attributes.get("antialias", 0):
        return "TVM's operator does not smooth (antialias)"
    aligned = attributes.get("coordinate_transformation_mode") == b"align_corners"
    if aligned and attributes.get("mode") != b"nearest" and 1 in after[1:]:
        return "TVM's operator divides by zero where align_corners leaves one pixel of an axis"
    if scales is None or not scales.size or aligned:
        return ""
    ratios = np.divide(after, before)
    named = scales[len(scales) - len(ratios) :] if "axes" not in attributes else scales
    if "axes" in attributes:
        ratios = np.array([(1, *ratios)[axis] for axis in attributes["axes"]])
    if not np.allclose(named, ratios, rtol=1e-6):
        return f"TVM's operator scales by {ratios.tolist()}, the ratio of the sizes, not by {named.tolist()}"
    return ""
