"""Small networks for the latency table, as QONNX."""

from __future__ import annotations

import numpy as np

from benchmarks.networks import Builder


def branching(path) -> str:
    """Two convolutions that read one quantizer, a downsample inside a residual layer, a pool that a quantizer sinks
    below, and a dense layer; 1, 2, 3 and 8 bits."""
    b = Builder(0)
    b.values["x"] = np.abs(np.random.default_rng(1).normal(size=(16, 8, 8))).astype(np.float32)
    first = b.activation("x", 2, "q0")
    y = b.relu(b.batch_norm(b.conv(first, 32, 3, 1, 2, "c0"), "bn0"), "r0")
    y = b.batch_norm(b.conv(b.activation(y, 2, "q1"), 32, 3, 1, 1, "c1"), "bn1")
    skip = b.batch_norm(b.conv(first, 32, 1, 1, 2, "down"), "bn_down")
    y = b.relu(b.add(y, skip, "add"), "r1")
    y = b.activation(b.max_pool(y, "pool"), 3, "q2")
    y = b.relu(b.batch_norm(b.conv(y, 32, 3, 2, 3, "c2"), "bn2"), "r2")
    y = b.node("GlobalAveragePool", [y], "mean", b.values[y].mean((1, 2), keepdims=True))
    y = b.activation(b.node("Flatten", [y], "flat", b.values[y].reshape(-1), axis=1), 4, "q3")
    b.network("x", b.dense(y, 10, 8, "fc")).save(path)
    return str(path)
