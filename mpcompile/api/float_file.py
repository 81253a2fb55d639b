"""A float ONNX file as the module that a search is of: read and folded by the room ptq, made of torch's layers by the room
search, and held against ONNX Runtime on the user's own samples."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpcompile.errors import UsageError

if TYPE_CHECKING:
    from mpcompile.search.trace.onnx_file.network import OnnxNetwork


def module_of(path: str | os.PathLike, samples: Any) -> OnnxNetwork:
    """`samples`: a torch tensor, float32 [N, …], two or more, by which sizes that the file leaves open are fixed.

    Raises UsageError and ModelError as `mp.quantize` does, and at what cannot be trained, naming the node; ModelError, too,
    where a file computes over its batch, and not sample by sample.
    """
    from mpcompile.frontend.source import open_model
    from mpcompile.ptq.float_model import read_float
    from mpcompile.search.trace.onnx_file.check import check
    from mpcompile.search.trace.onnx_file.network import OnnxNetwork

    opened = open_model(Path(path))
    ports = [v for v in opened.graph.inputs if v.name not in opened.graph.initializers]
    if len(ports) != 1 or ports[0].name is None or ports[0].shape is None:
        names = ", ".join(v.name or "?" for v in ports)
        raise UsageError(f"{path} has {len(ports)} inputs ({names}); one, whose axes are known, would be accepted")
    size = ports[0].shape[0]
    batch = size if isinstance(size, int) and size > 0 else 1  # some exporters write 0 or −1 for an open size
    read = read_float(path, {ports[0].name: (batch, *samples.shape[1:])}, fuse_layers=False)
    made = OnnxNetwork(read.proto, str(path)).eval()
    check(made, read.proto.SerializeToString(), batch, samples[:2])
    return made
