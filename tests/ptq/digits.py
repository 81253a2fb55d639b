"""A small network that reads scenes of digits, trained for some seconds, and how well a file reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

from mpcompile.latency.onnxruntime import session
from mpcompile.search.digits import digits
from tests.ptq.nets import conv, export

TRAIN, TEST, BATCH, STEPS = 2000, 1000, 64, 200


class Reader(nn.Module):
    """Convolutions with strides and depthwise ones, of a kind that few bits hurt."""

    shape = (1, 16, 16)

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            *(conv(1, 16, 3, stride=2), nn.ReLU6()),
            *(conv(16, 16, 3, groups=16), nn.ReLU6(), conv(16, 32, 1), nn.ReLU6()),
            *(conv(32, 32, 3, stride=2, groups=32), nn.ReLU6(), conv(32, 64, 1), nn.ReLU6()),
            *(conv(64, 64, 3), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)),
        )

    def forward(self, x):
        return self.layers(x)


def images() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """(images float32 [N, 1, 16, 16] in 0..1, labels [N]) to train and to test with."""
    found = digits(TRAIN, TEST)
    train, test = ((x.reshape(-1, 1, 16, 2, 16, 2).mean((3, 5), dtype=np.float32) / 255, y) for x, y in found)
    return train, test


def trained(path: Path) -> Path:
    """The float file of the network after training, the same each time on one machine."""
    torch.manual_seed(0)
    net, ((x, y), _) = Reader(), images()
    inputs, labels = torch.from_numpy(x), torch.from_numpy(y).long()
    optimizer = torch.optim.Adam(net.parameters(), 4e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, STEPS)
    draw = np.random.default_rng(0)
    net.train()
    for _ in range(STEPS):
        some = torch.from_numpy(draw.integers(0, TRAIN, BATCH))
        loss = nn.functional.cross_entropy(net(inputs[some]), labels[some])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return export(net.eval(), path)


def accuracy(answers: np.ndarray, labels: np.ndarray) -> float:
    return float((answers.argmax(1) == labels).mean())


def float_answers(path: Path, x: np.ndarray) -> np.ndarray:
    return np.asarray(session(str(path), 1).run(None, {"x": x})[0])


def answers(path: Path, x: np.ndarray) -> np.ndarray:
    """Of a QONNX file, by qonnx's executor."""
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx
    from qonnx.transformation.infer_shapes import InferShapes

    model = onnx.load(path)
    for port in (*model.graph.input, *model.graph.output):
        port.type.tensor_type.shape.dim[0].dim_value = len(x)
    return execute_onnx(ModelWrapper(model).transform(InferShapes()), {"x": x})["y"]
