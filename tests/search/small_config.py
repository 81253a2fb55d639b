"""The configuration of a search that is as small as it goes, as a user writes one."""

import json

SMALL = {
    "data": {"side": 8},
    "network": {"widths": [8], "blocks": [1]},
    "search": {"method": "ebs", "weights": [1, 8], "activations": [2, 8], "epochs": 1, "warmup": 0, "batch": 16},
    "objective": {"targets": ["60 %"]},
    "pretrain": {"epochs": 1},
    "retrain": {"epochs": 1},
    "baselines": {"uniform": ["w1a2"]},
    "measure": {"threads": 1, "rounds": 1},
}


def small_config(**changes: dict) -> str:
    """SMALL as TOML; `changes`: section → its keys that are other ones, or come besides."""
    sections = {name: section | changes.get(name, {}) for name, section in SMALL.items()}
    return "\n".join(
        f"[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in section.items())
        for name, section in sections.items()
    )
