"""A detector, from a float ONNX file to boxes on a picture: int8 by ONNX Runtime's quantizer, int8 and mixed bits by
mpcompile's, side by side.

    python examples/detector/detect.py [-o runs/detector] [--steps 500] [--mean-bits 4] [--train]
"""

from __future__ import annotations

import argparse
import runpy
import sys
from pathlib import Path

import numpy as np
from boxes import average_precision, draw, found, side_by_side
from pictures import pictures

import mpcompile as mp

OTHER_EXAMPLE = Path(__file__).parents[1] / "compile_your_own" / "float_onnx_to_int8.py"
CALIBRATED, JUDGED, SHOWN = 128, 200, 3


def options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/detector"), help="folder (%(default)s)")
    parser.add_argument("--steps", type=int, default=500, help="of training, 16 pictures each (%(default)s)")
    parser.add_argument("--mean-bits", type=float, default=4.0, help="of the mixed bits (%(default)s)")
    parser.add_argument("--train", action="store_true", help="anew, where a float file is there")
    parser.add_argument(
        "--judged", type=int, default=JUDGED, help="pictures that precision is measured on (%(default)s)"
    )
    return parser.parse_args(arguments)


def float_file(path: Path, steps: int, anew: bool) -> Path:
    if anew or not path.exists():
        from network import export, trained

        export(trained(steps), path)
    return path


def quantized(source: Path, folder: Path, samples: np.ndarray, mean_bits: float) -> dict[str, Path]:
    """Title → the file, of each way to quantize."""
    files = {
        "int8, ONNX Runtime's quantizer": folder / "int8_onnxruntime.onnx",
        "int8, mpcompile quantize": folder / "int8.onnx",
        f"mixed, {mean_bits:g} bits in the mean": folder / "mixed.onnx",
    }
    first, second, third = files.values()
    by_onnxruntime = runpy.run_path(str(OTHER_EXAMPLE))["quantize"]
    by_onnxruntime(source, first, {"x": samples})
    mp.quantize(source, samples, second, bits="w8a8")
    made = mp.quantize(source, samples, third, mean_bits=mean_bits)
    print("mixed bits: " + ", ".join(f"{layer.name} {layer.bits}" for layer in made.layers))
    return files


def cells_of(bundle, images: np.ndarray) -> np.ndarray:
    return np.concatenate([bundle.run(images[i : i + 1]) for i in range(len(images))])


def by_float(path: Path, images: np.ndarray) -> tuple[np.ndarray, float]:
    """The float network's cells by ONNX Runtime, and the median of its times in seconds, on one thread."""
    import time

    from mpcompile.latency.onnxruntime import session

    network = session(path, 1)
    times, cells = [], []
    for image in images:
        begun = time.perf_counter()
        cells.append(network.run(None, {"x": image[None]})[0])
        times.append(time.perf_counter() - begun)
    return np.concatenate(cells), float(np.median(times))


def main(arguments: list[str] | None = None) -> int:
    args = options(arguments)
    folder = args.output
    folder.mkdir(parents=True, exist_ok=True)
    source = float_file(folder / "float.onnx", args.steps, args.train)
    samples, _ = pictures(CALIBRATED, seed=1)
    np.savez(folder / "calibration.npz", x=samples)
    images, right = pictures(args.judged, seed=2)

    cells, seconds = by_float(source, images)
    rows = [("float, ONNX Runtime", cells, seconds, source.stat().st_size)]
    for title, path in quantized(source, folder, samples, args.mean_bits).items():
        bundle_path = path.with_suffix(".mpc")
        mp.compile(path, target="native", output=bundle_path)
        checked = mp.verify(path, bundle_path)
        if not checked.equal:
            print(f"{path}: {checked.summary}", file=sys.stderr)
            return 1
        with mp.open_bundle(bundle_path, threads=1) as bundle:
            rows.append(
                (title, cells_of(bundle, images), bundle.bench(seconds=0.5).seconds, bundle_path.stat().st_size)
            )

    answers = {title: [found(c) for c in cells] for title, cells, *_ in rows}
    print("\n| network | AP at an overlap of ½ | ms, one thread | KiB |\n|---|---|---|---|")
    for title, _, seconds, size in rows:
        precision = average_precision(answers[title], right)
        print(f"| {title} | {precision:.3f} | {seconds * 1e3:.3f} | {size / 1024:.0f} |")
    shown = [[draw(images[i], answers[title][i], title) for title in answers] for i in range(min(SHOWN, len(images)))]
    side_by_side(shown, folder / "boxes.png")
    print(f"\nboxes are drawn in {folder / 'boxes.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
