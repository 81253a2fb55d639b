"""ONNX Runtime as a subject of the measurer: sequential, a fixed number of threads, every graph optimisation."""

from __future__ import annotations

import numpy as np

from mpcompile.errors import MissingDependency, ModelError, UsageError
from mpcompile.latency.measure import Timer, local
from mpcompile.latency.waiting import waits_of


def session(model: str | bytes, threads: int):
    """An InferenceSession on the CPU: intra-op `threads`, inter-op 1, sequential, all optimisations.

    `model` is a path or a serialised ModelProto. Raises MissingDependency, or ModelError with ONNX Runtime's reason.
    """
    try:
        import onnxruntime as ort
    except ImportError:
        raise MissingDependency(
            "comparing with ONNX Runtime needs onnxruntime: pip install onnxruntime==1.31.1"
        ) from None
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    options.add_session_config_entry("session.force_spinning_stop", "1")  # idle workers must not slow the next subject
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        name = model if isinstance(model, str) else "the model"
        raise ModelError(f"ONNX Runtime does not take {name}: {str(error).splitlines()[0]}") from None


def timer(sess, feeds: dict[str, np.ndarray] | None = None, seed: int = 0) -> Timer:
    """A timer of `sess` on `feeds` (default: random ones), bound once so that no copies in or out are timed."""
    binding = sess.io_binding()
    feeds = random_feeds(sess, seed) if feeds is None else feeds
    for name, x in feeds.items():
        binding.bind_cpu_input(name, np.ascontiguousarray(x))
    for output in sess.get_outputs():
        binding.bind_output(output.name, "cpu")
    found = local(lambda: sess.run_with_iobinding(binding))
    found.waits = waits_of(sess.get_session_options().intra_op_num_threads)
    return found


def random_feeds(sess, seed: int = 0) -> dict[str, np.ndarray]:
    """N(0, 1) float32, or random uint8/int8 codes, in each input's shape; a free batch axis is 1."""
    rng = np.random.default_rng(seed)
    feeds = {}
    for port in sess.get_inputs():
        shape = [n if isinstance(n, int) else 1 if i == 0 else None for i, n in enumerate(port.shape)]
        if None in shape:
            raise UsageError(f"input {port.name} of the other model has a free axis besides batch: {port.shape}")
        if port.type == "tensor(float)":
            feeds[port.name] = rng.normal(size=shape).astype(np.float32)
        elif port.type in ("tensor(uint8)", "tensor(int8)"):
            feeds[port.name] = rng.integers(0, 127, shape).astype(port.type[7:-1])
        else:
            raise UsageError(f"input {port.name} of the other model is {port.type}, not float32 or 8-bit")
    return feeds
