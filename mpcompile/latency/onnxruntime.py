"""ONNX Runtime, with which users compare: as a subject of the measurer (sequential, a fixed number of threads, every
graph optimisation), its own static int8 quantization, and its answers."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from mpcompile.errors import MissingDependency, ModelError, UsageError
from mpcompile.files import atomic_path
from mpcompile.latency.timer import Timer, local
from mpcompile.latency.waiting import wait_clock
from mpcompile.temporary import temporary_folder

EXTERNAL = b"\x0a\x08location"
"""In a protobuf, the key that a tensor has whose data lie in another file; without it there is none."""


def require() -> None:
    """Raises MissingDependency where ONNX Runtime is not installed; loads nothing."""
    if find_spec("onnxruntime") is None:
        raise MissingDependency("comparing with ONNX Runtime needs onnxruntime: pip install onnxruntime==1.31.1")


def session(model: str | bytes, threads: int):
    """An InferenceSession on the CPU: intra-op `threads`, inter-op 1, sequential, all optimisations.

    `model` is a path or a serialised ModelProto. Raises MissingDependency, or ModelError with ONNX Runtime's reason.
    """
    require()
    import onnxruntime as ort

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


def self_contained(path: str | os.PathLike) -> bytes:
    """The file of a model with its external data inside, for a session elsewhere. Raises OSError where it cannot be
    read, MissingDependency where that needs onnx, ModelError where the data cannot be read, or are too much."""
    data = Path(path).read_bytes()
    if EXTERNAL not in data:
        return data
    if find_spec("onnx") is None:
        raise MissingDependency(f"{path} has its data in other files; sending all needs onnx: pip install onnx==1.22.0")
    import onnx

    try:
        model = onnx.load_model_from_string(data)
        onnx.load_external_data_for_model(model, str(Path(path).parent))
    except Exception as error:  # protobuf and onnx raise many kinds at damaged files
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"the data of {path} in other files cannot be read ({reason})") from None
    try:
        return model.SerializeToString()
    except Exception:  # which kind depends on protobuf's version
        raise ModelError(f"{path} is larger than 2 GiB with its data, more than can be sent in one ONNX file") from None


def timer(sess, feeds: dict[str, np.ndarray] | None = None, seed: int = 0) -> Timer:
    """A timer of `sess` on `feeds` (default: random ones), bound once so that no copies in or out are timed."""
    binding = sess.io_binding()
    feeds = random_feeds(sess, seed) if feeds is None else feeds
    for name, x in feeds.items():
        binding.bind_cpu_input(name, np.ascontiguousarray(x))
    for output in sess.get_outputs():
        binding.bind_output(output.name, "cpu")
    threads = sess.get_session_options().intra_op_num_threads
    return local(lambda: sess.run_with_iobinding(binding), wait_clock(threads))


def random_feeds(sess, seed: int = 0) -> dict[str, np.ndarray]:
    """N(0, 1) float32, or random uint8/int8 codes, in each input's shape; a free batch axis is 1."""
    rng = np.random.default_rng(seed)
    feeds = {}
    for port in sess.get_inputs():
        free = [i for i, n in enumerate(port.shape) if not isinstance(n, int)]
        if any(free):  # other than the first, which is 0
            raise UsageError(f"input {port.name} of the other model has a free axis besides batch: {port.shape}")
        shape = [1 if i in free else n for i, n in enumerate(port.shape)]
        if port.type == "tensor(float)":
            feeds[port.name] = rng.normal(size=shape).astype(np.float32)
        elif port.type in ("tensor(uint8)", "tensor(int8)"):
            feeds[port.name] = rng.integers(0, 127, shape).astype(port.type[7:-1])
        else:
            raise UsageError(f"input {port.name} of the other model is {port.type}, not float32 or 8-bit")
    return feeds


def quantize_int8(source: str | os.PathLike, target: str | os.PathLike, images: np.ndarray) -> None:
    """ONNX Runtime's own static quantization of the float file `source`, written to `target` whole or not at all: QDQ,
    u8 activations, s8 weights per output channel, min-max over `images`, float32 [N, …], one at a time.

    Raises MissingDependency, UsageError where the model has several inputs.
    """
    require()
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    feeds = _feeds(session(os.fspath(source), 1), images)

    class CalibrationImages(CalibrationDataReader):
        def get_next(self):
            return next(feeds, None)

    logger = logging.getLogger()
    before = logger.level
    logger.setLevel(logging.ERROR)  # it recommends steps that are done here, on the root logger
    try:
        with temporary_folder() as folder, atomic_path(target) as out:
            prepared, made = folder / "prepared.onnx", folder / "quantized.onnx"
            quant_pre_process(os.fspath(source), str(prepared))
            quantize_static(
                str(prepared),
                str(made),
                CalibrationImages(),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
            shutil.copyfile(made, out)
    finally:
        logger.setLevel(before)


def run(sess, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The outputs by name. Inputs have the model's shape, or a batch axis of any size, or it in place of a first axis
    of 1: then one sample is run at a time, and the outputs have that axis too. Raises UsageError naming what does not
    fit."""
    ports = {p.name: [n if isinstance(n, int) else None for n in p.shape] for p in sess.get_inputs()}
    odd = sorted(set(ports) ^ set(inputs))
    if odd:
        raise UsageError(
            f"there is no array for the model's input {odd[0]}"
            if odd[0] in ports
            else f"the model has no input {odd[0]}: it has {', '.join(ports)}"
        )
    names = [o.name for o in sess.get_outputs()]
    if all(_fits(inputs[name].shape, shape) for name, shape in ports.items()):
        return dict(zip(names, sess.run(None, dict(inputs))))
    counts = {len(x) if x.ndim else 0 for x in inputs.values()}
    if len(counts) != 1 or not min(counts):
        raise UsageError("the inputs hold different numbers of samples, or none")
    one = {name: shape[:1] == [1] and inputs[name].ndim == len(shape) for name, shape in ports.items()}
    for name, shape in ports.items():
        if not _fits(inputs[name][:1].shape if one[name] else inputs[name].shape[1:], shape):
            raise UsageError(f"input {name} has the shape {inputs[name].shape}, the model takes {shape}, or several")
    results = [
        sess.run(None, {name: x[i : i + 1] if one[name] else x[i] for name, x in inputs.items()})
        for i in range(counts.pop())
    ]
    join = np.concatenate if all(one.values()) else np.stack
    return {name: join([r[at] for r in results]) for at, name in enumerate(names)}


def _fits(given: tuple[int, ...], shape: list[int | None]) -> bool:
    return len(given) == len(shape) and all(n in (None, g) for g, n in zip(given, shape))


def _feeds(sess, images: np.ndarray):
    """The feed of each image. Raises UsageError where the model has several inputs."""
    ports = sess.get_inputs()
    if len(ports) != 1:
        raise UsageError(f"the model has {len(ports)} inputs; one that takes an image would be accepted")
    return ({ports[0].name: image[None]} for image in images)
