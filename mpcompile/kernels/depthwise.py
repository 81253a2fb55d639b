"""Family `depthwise`: one filter a channel, int32 lanes over channels. Definition and weight packing."""

from __future__ import annotations

import numpy as np

from mpcompile.kernels.tvm_names import te


def pack_weights(q: np.ndarray, outputs: int) -> np.ndarray:
    """int [C, 1, KH, KW] to int16 [KH, KW, outputs], zero-padded."""
    c, _, kh, kw = q.shape
    full = np.zeros((kh, kw, outputs), np.int16)
    full[..., :c] = q[:, 0].transpose(1, 2, 0)
    return full


def compute(name: str, data, weight, height: int, width: int, strides, dilations, origin):
    """D[y, x, o] int32 of data u8 [HP, WP, CP] and weight int16 [KH, KW, OP]; CP and OP are the same number."""
    kernel_h, kernel_w, channels = (int(n) for n in weight.shape)
    kh, kw = te.reduce_axis((0, kernel_h), "kh"), te.reduce_axis((0, kernel_w), "kw")

    def product(y, x, o):
        act = data[y * strides[0] + kh * dilations[0] + origin[0], x * strides[1] + kw * dilations[1] + origin[1], o]
        return te.sum(act.astype("int32") * weight[kh, kw, o].astype("int32"), axis=[kh, kw])

    return te.compute((height, width, channels), product, name=name)
