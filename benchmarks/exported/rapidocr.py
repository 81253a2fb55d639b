"""python -m benchmarks.exported.rapidocr --wheel FILE [NAME …] [--rounds N] [--keep FOLDER] [--json FILE]

PP-OCR's own files, from the wheel of rapidocr-onnxruntime (pip download --no-deps rapidocr-onnxruntime): the detector, the
classifier of directions and the recogniser, quantized on pictures of text by ONNX Runtime's quantizer and by
`mpcompile quantize`, compiled, verified with the outside witness, and timed against ONNX Runtime's int8 on its own
quantizer's file, one thread each, in turn."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.exported.quantized import OPSET, quantize_file

WORDS = """
    Street 2026 open daily from 9:30 to 18:45 No. 27 receipt total 148.20 EUR table 12 please keep this ticket platform 4
    the quick brown fox jumps over a lazy dog 3rd floor left Bakery & Coffee mind the gap EXIT Room B-113 5% off
    today fragile
""".split()


class Part(NamedTuple):
    """A file of the wheel; `shape` of its input, `lines` of text on a picture for it, how its outputs are `read`."""

    file: str
    shape: tuple[int, int, int]
    lines: int
    read: str


PARTS = {
    "detector": Part("ch_PP-OCRv4_det_infer.onnx", (3, 320, 320), 6, "text"),
    "classifier": Part("ch_ppocr_mobile_v2.0_cls_infer.onnx", (3, 48, 192), 1, "class"),
    "recogniser": Part("ch_PP-OCRv4_rec_infer.onnx", (3, 48, 320), 1, "class"),
}
"""Shapes as rapidocr's config.yaml has them; the detector's it leaves to the picture, whose shorter side it makes 736."""
CALIBRATED_ON, JUDGED_ON = 12, 16
TEXT = 0.3
"""From this likelihood on, the detector's pixels are text, as config.yaml says."""


def picture(rng: np.random.Generator, shape: tuple[int, int, int], lines: int, turned: bool) -> np.ndarray:
    """float32 (3, H, W) from −1 to 1: dark words on a light ground, or the other way about, with noise and a gradient; a
    picture of one line is filled by it. `turned`: half of them stand on their heads."""
    from PIL import Image, ImageDraw, ImageFont

    _, height, width = shape
    dark, light = rng.integers(0, 90, 3), rng.integers(150, 256, 3)
    ground, ink = (light, dark) if rng.random() < 0.7 else (dark, light)
    image = Image.new("RGB", (width, height), tuple(map(int, ground)))
    pen, step = ImageDraw.Draw(image), height / lines
    for i in range(lines):
        words = " ".join(rng.choice(WORDS, int(rng.integers(1, 3 if lines == 1 else 5))))
        font = ImageFont.load_default(size=step * (0.7 if lines == 1 else rng.uniform(0.35, 0.75)))
        left = 4 if lines == 1 else int(rng.integers(0, width // 2))
        pen.text((left, step * (i + 0.05)), words, fill=tuple(map(int, ink)), font=font)
    pixels = np.asarray(image, np.float32)
    pixels = (
        pixels + rng.normal(0, rng.uniform(0, 12), pixels.shape) + np.linspace(0, rng.uniform(-40, 40), width)[:, None]
    )
    if turned and rng.random() < 0.5:
        pixels = pixels[::-1, ::-1]
    return ((pixels.clip(0, 255) / 255 - 0.5) / 0.5).transpose(2, 0, 1).astype(np.float32)


def extract(wheel: Path, part: Part, path: Path) -> None:
    """Writes the part's file, its input fixed to one sample of the part's shape, in an opset that has a scale for each
    channel."""
    import onnx

    with zipfile.ZipFile(wheel) as archive:
        model = onnx.load_from_string(archive.read(f"rapidocr_onnxruntime/models/{part.file}"))
    dims = model.graph.input[0].type.tensor_type.shape.dim
    for dim, size in zip(dims, (1, *part.shape), strict=True):
        dim.dim_value = size
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    del model.graph.value_info[:]
    onnx.save(onnx.version_converter.convert_version(model, OPSET), path)


def agreement(part: Part, mine: list[np.ndarray], theirs: list[np.ndarray]) -> float:
    """Of outputs with the float file's: the share of equal classes (of a column, of a picture), or the overlap of what is
    text, its intersection over its union."""
    a, b = np.concatenate(mine), np.concatenate(theirs)
    if part.read == "text":
        return float(((a > TEXT) & (b > TEXT)).sum() / max(1, ((a > TEXT) | (b > TEXT)).sum()))
    return float((a.argmax(-1) == b.argmax(-1)).mean())


def rows_of(name: str, wheel: Path, folder: Path, rounds: int) -> list[dict]:
    """Two rows: ONNX Runtime's quantizer, and ours, at 8 bits; both against ONNX Runtime on the first."""
    import onnxruntime

    import mpcompile as mp
    from benchmarks.exported.measure import measure

    part, rng = PARTS[name], np.random.default_rng(0)
    calibration, judged = (
        np.stack([picture(rng, part.shape, part.lines, name == "classifier") for _ in range(n)])
        for n in (CALIBRATED_ON, JUDGED_ON)
    )
    plain, qdq, qonnx, bundle = (folder / f"{name}.{kind}" for kind in ("onnx", "qdq.onnx", "qonnx.onnx", "mpc"))
    extract(wheel, part, plain)
    session = onnxruntime.InferenceSession(str(plain), providers=["CPUExecutionProvider"])
    given = session.get_inputs()[0].name
    exact = [np.asarray(session.run(None, {given: x[None]})[0]) for x in judged]
    mp.quantize(plain, calibration, qonnx, bits="w8a8")
    quantize_file(plain, qdq, calibration, symbolic=False)  # which does not know the classifier's shapes
    rows = []
    for path, by in ((qdq, "ONNX Runtime"), (qonnx, "mpcompile")):
        row = measure(f"{name}, quantized by {by}", path, judged[0], rounds, qdq, bundle)
        with mp.open_bundle(bundle, 1) as opened:
            mine = [one_output(opened.run(x[None])) for x in judged]
        rows.append(row | {"agreement": agreement(part, mine, exact)})
    return rows


def one_output(found) -> np.ndarray:
    return next(iter(found.values())) if isinstance(found, dict) else found


def table(rows: list[dict]) -> str:
    """Markdown."""
    from benchmarks.exported.measure import counted

    lines = [
        "| file | ms | ONNX Runtime int8 / mpcompile | in float | as the float file | exact |",
        "|---|---|---|---|---|---|",
    ]
    for r in rows:
        floats = counted(r["in_float"])
        equal = "yes" if r["equal"] else "NO"
        lines.append(
            f"| {r['network']} | {r['ms']:.2f} | {r['ratio']:.2f} | {floats} | {r['agreement']:.1%} | {equal} |"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.exported.rapidocr", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--wheel", required=True, type=Path, metavar="FILE", help="rapidocr_onnxruntime-….whl")
    parser.add_argument("--rounds", type=int, default=15, help="each time is the median of so many (15)")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="the files stay there")
    parser.add_argument("--json", metavar="FILE", help="the rows as JSON")
    args = parser.parse_args()
    if unknown := sorted(set(args.names) - set(PARTS)):
        parser.error(f"there is no part {unknown[0]}: name some of {', '.join(PARTS)}")
    rows: list[dict] = []
    with tempfile.TemporaryDirectory() as folder:
        kept = args.keep or Path(folder)
        kept.mkdir(parents=True, exist_ok=True)
        for name in args.names or PARTS:
            rows += rows_of(name, args.wheel, kept, args.rounds)
            print(*(f"{r['network']}: {r['read']}" for r in rows[-2:]), table(rows[-2:]), sep="\n", flush=True)
    print(table(rows))
    if args.json:
        Path(args.json).write_text(json.dumps(rows, indent=1) + "\n")
    return 0 if all(r["equal"] for r in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
