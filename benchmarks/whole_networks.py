"""Whole networks from end to end, one thread, against ONNX Runtime's int8 and fp32 in one interleaved run; and memory.

Each network's result is kept in results/networks.json, so that they can be measured one at a time.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

from benchmarks.compiled import Bench
from benchmarks.networks import NETWORKS, Bits
from benchmarks.onnxruntime_baseline import baselines
from benchmarks.onnxruntime_baseline import prepare as prepare_baselines
from benchmarks.row import Row
from mpcompile.latency.measure import measure
from mpcompile.targets import cpu

LOW = (Bits(1, 1), Bits(1, 2), Bits(2, 2), Bits(4, 4), Bits(8, 8))
BITS = {name: LOW[1:] if name.startswith("mobilenet") else LOW for name in NETWORKS}
"""Nobody trains a MobileNet whose pointwise convolutions read single bits."""
TITLES = {
    "resnet18": "ResNet-18",
    "resnet50": "ResNet-50",
    "googlenet": "GoogLeNet",
    "mobilenet_v1": "MobileNet-v1",
    "mobilenet_v2": "MobileNet-v2",
    "vgg_small": "VGG-small",
    "resnet20": "ResNet-20",
}
FILE = "networks.json"


def prepare(bench: Bench, name: str) -> None:
    """All that takes long and is not measured: networks, bundles, ONNX Runtime's models."""
    prepare_baselines(bench, name, NETWORKS[name])
    for bits in BITS[name]:
        bench.compiled(f"{name} {bits}", lambda: NETWORKS[name](bits))


def measured(bench: Bench, name: str, rounds: int) -> dict:
    """The network at each pair of bits and in ONNX Runtime: milliseconds, ratios, bytes."""
    prepare(bench, name)
    subjects = baselines(bench, name, NETWORKS[name])
    bundles = {str(bits): bench.bundle(f"{name} {bits}", lambda: NETWORKS[name](bits)) for bits in BITS[name]}
    subjects |= {bits: bundle.timer(bench.example(f"{name} {bits}")[0]) for bits, bundle in bundles.items()}
    bench.say(f"measuring {TITLES[name]}")
    found = measure(subjects, rounds=rounds)
    any_bundle = next(iter(bundles.values()))
    return {
        "network": name,
        "cpu": cpu.name(),
        "when": time.strftime("%Y-%m-%d"),
        "input": list(any_bundle.inputs[0].shape),
        "macs": sum(row.get("macs", 0) for row in any_bundle.layers),
        "milliseconds": {label: found[label].seconds * 1e3 for label in subjects},
        "spread": {label: found[label].spread for label in subjects},
        "vs": {bits: {other: found.ratio(other, bits) for other in ("int8", "fp32")} for bits in bundles},
        "workspace_bytes": {bits: bundle.plan.workspace_bytes for bits, bundle in bundles.items()},
        "live_bytes": {bits: bundle.plan.live_bytes for bits, bundle in bundles.items()},
    }


def keep(folder: Path, result: dict) -> list[dict]:
    """Puts one network's result into FILE; all that are there, in the order of NETWORKS."""
    kept = known(folder) | {result["network"]: result}
    kept = [kept[name] for name in NETWORKS if name in kept]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_text(json.dumps(kept, indent=1) + "\n")
    (folder / FILE).with_suffix(".md").write_text(markdown(kept))
    return kept


def known(folder: Path) -> dict[str, dict]:
    """Network → its result, of those measured before."""
    file = folder / FILE
    return {r["network"]: r for r in json.loads(file.read_text())} if file.exists() else {}


def rows(result: dict) -> list[Row]:
    """For the terminal."""
    ms, group = result["milliseconds"], f"{TITLES[result['network']]}, 1 thread, vs ONNX Runtime int8"
    return [
        Row(
            group,
            bits,
            vs["int8"],
            "×",
            None,
            f"{ms[bits]:.2f} ms (spread {result['spread'][bits]:.1%}) against {ms['int8']:.2f}; "
            f"fp32 {vs['fp32']:.1f}×; {result['workspace_bytes'][bits] / 1024:.0f} KiB, "
            f"{result['live_bytes'][bits] / 1024:.0f} alive at once",
        )
        for bits, vs in result["vs"].items()
    ]


def markdown(results: list[dict]) -> str:
    """A line a network: what ONNX Runtime takes, how many times faster each bundle is, and its memory."""
    columns = [str(bits) for bits in LOW]
    lines = [
        "| network | ONNX Runtime int8, fp32 | " + " | ".join(columns) + " | workspace, alive at once |",
        "|---|---|" + "---|" * (len(columns) + 1),
    ]
    for r in results:
        ms = r["milliseconds"]
        cells = [f"{r['vs'][c]['int8']:.2f}×, {ms[c]:.2f} ms" if c in r["vs"] else "" for c in columns]
        most, alive = (r[key]["W2A2"] / 1024 for key in ("workspace_bytes", "live_bytes"))
        title = f"{TITLES[r['network']]} {r['input'][-1]}², {r['macs'] / 1e9:.2f} GMAC"
        lines.append(
            f"| {title} | {ms['int8']:.2f}, {ms['fp32']:.2f} ms | "
            + " | ".join(cells)
            + f" | {most:.0f}, {alive:.0f} KiB |"
        )
    return "\n".join(lines) + "\n"


def ratios(results: list[dict]) -> str:
    """Of the same lines how many times faster than ONNX Runtime's int8 each bundle is, and nothing else."""
    columns = [str(bits) for bits in LOW]
    lines = ["| network | " + " | ".join(columns) + " |", "|---|" + "---|" * len(columns)]
    for r in results:
        cells = [f"{r['vs'][c]['int8']:.2f}×" if c in r["vs"] else "" for c in columns]
        lines.append(f"| {TITLES[r['network']]} {r['input'][-1]}² | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
