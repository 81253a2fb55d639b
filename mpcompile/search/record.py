"""What was run, on which data and machine, with which versions: what a report needs beside the points."""

from __future__ import annotations

from pathlib import Path

from mpcompile.latency.table import LatencyTable
from mpcompile.search.config import Config
from mpcompile.search.device import SearchDevice
from mpcompile.search.layers import Network
from mpcompile.search.task import ImagesTask, Task

FORMAT = 1
"""Of the JSON files that reports are made from."""


def about_run(
    name: str, config: Config, task: Task, network: Network, device: SearchDevice, table: LatencyTable | None
) -> dict:
    """run.json; `name` is the configuration file's. With the latency table it also tells which fused layer each layer
    is part of. `points`: those to come, in no particular order."""
    fused = {k: part.layer for k, part in table.contractions.items()} if table else {}
    reads, macs = network.reads(), network.macs()
    layers = [
        {
            "name": layer.name,
            "reads": reads[layer.name],
            "macs": macs[layer.name],
            "shape": list(layer.weight.shape),
            "searched": layer.choice.searched,
            "fused": fused.get(layer.name),
        }
        for layer in network.layers()
    ]
    chosen = config.to_json()
    if not isinstance(task, ImagesTask):
        chosen["network"] = {name: chosen["network"][name] for name in ("weight", "activation")}
        del chosen["data"]
    else:
        chosen["data"]["path"] = Path(
            config.data.path
        ).name  # a report is shown to others; where the data lay is nobody's
    wanted = config.baselines
    return {
        "format": FORMAT,
        "name": name,
        "data": task.about(),
        "config": chosen,
        "network": {"name": network.title, "layers": layers},
        "points": [
            *(["float"] * (wanted.float or wanted.int8)),
            *(["int8"] * wanted.int8),
            *(f"uniform-{bits}" for bits in wanted.uniform),
            *(budget.name for budget in config.budgets()),
        ],
        "device": dict(device.identity),
        **{part: dict(found) for part, found in device.about().items()},
    }
