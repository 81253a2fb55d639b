"""Whether the module of a file computes what the file does: ONNX Runtime says."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mpcompile.errors import ModelError
from mpcompile.latency import onnxruntime
from mpcompile.search.trace.onnx_file.network import OnnxNetwork

AGREE = 1e-3
"""How far outputs may be from ONNX Runtime's, as a part of the largest: float32 sums in another order."""


def check(made: OnnxNetwork, file: bytes, batch: int, samples: Tensor) -> None:
    """That the module gives, of several samples [N, …] at once, what `file`, of so large a batch, gives of each. Raises
    ModelError, naming the output."""
    session = onnxruntime.session(file, 1)
    with torch.no_grad():
        found = made(samples)
    several = (found,) if isinstance(found, Tensor) else found
    for at, sample in enumerate(samples.numpy()):
        answers = session.run(None, {made.input: np.broadcast_to(sample, (batch, *sample.shape))})
        for name, answer, value in zip(made.outputs, answers, several, strict=True):
            wanted, own = np.asarray(answer), value.numpy()[at : at + 1]
            if len(value) != len(samples) or own.shape != wanted[:1].shape:
                raise ModelError(
                    f"output {name} of the file has not one row for each sample, as a search needs it: its shape is "
                    f"{list(wanted.shape)} for a batch of {batch}"
                )
            if np.abs(own - wanted[:1]).max(initial=0) > AGREE * max(float(np.abs(wanted).max(initial=0)), 1e-6):
                raise ModelError(
                    f"output {name}: as a module the file does not compute what it does in ONNX Runtime: does it compute "
                    "over its batch?"
                )
