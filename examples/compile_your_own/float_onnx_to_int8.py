"""From a float ONNX file to an int8 bundle: ONNX Runtime's own quantizer writes QDQ, mpcompile compiles it.

    python examples/compile_your_own/float_onnx_to_int8.py FLOAT.onnx SAMPLES.npz [-o MODEL.mpc]

SAMPLES.npz holds typical inputs, float32, for calibration: one array an input, samples along its first axis. The
quantized network stays beside the bundle, as MODEL.int8.onnx. Needs onnxruntime.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from pathlib import Path

import numpy as np
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

import mpcompile as mp
from mpcompile.latency.onnxruntime import session


class Samples(CalibrationDataReader):
    """One sample at a time, with a batch axis of one."""

    def __init__(self, arrays: dict[str, np.ndarray]):
        count = min(len(a) for a in arrays.values())
        self.left = iter([{name: a[i : i + 1] for name, a in arrays.items()} for i in range(count)])

    def get_next(self):
        return next(self.left, None)


def quantize(source: Path, target: Path, samples: dict[str, np.ndarray]) -> None:
    """Static QDQ: u8 activations, s8 weights with a scale per output channel."""
    logging.getLogger().setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(str(source), str(prepared))
        quantize_static(
            str(prepared),
            str(target),
            Samples(samples),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("samples", type=Path)
    parser.add_argument("-o", "--output", type=Path, help="default: FLOAT.int8.mpc beside the model")
    options = parser.parse_args(arguments)
    output = options.output or options.model.with_suffix(".int8.mpc")
    with np.load(options.samples, allow_pickle=False) as arrays:
        samples = dict(arrays)

    int8 = output.with_name(output.stem.removesuffix(".int8") + ".int8.onnx")
    if int8.resolve() == options.model.resolve():
        parser.error(f"{int8} would replace the float model: give the bundle another name")
    quantize(options.model, int8, samples)
    mp.compile(int8, target="native", output=output)

    first = {name: a[:1] for name, a in samples.items()}
    expected = session(str(int8), threads=1).run(None, first)[0]
    with mp.open_bundle(output, threads=1) as bundle:
        got = bundle.run(first)
        got = got if isinstance(got, np.ndarray) else got[bundle.outputs[0].name]
        print(
            f"{output}: largest difference to ONNX Runtime {np.abs(got - expected).max():.2g} "
            f"of {np.abs(expected).max():.2g}; "
            f"{bundle.bench(seconds=0.3).seconds * 1e6:.0f} µs on one core"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
