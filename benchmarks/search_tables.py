"""The tables of benchmarks.search_figures: from one row a network to means over seeds, and to Markdown. No torch."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from statistics import mean, stdev

Rows = Sequence[Mapping]
"""Each network: seed, name, kind (uniform, latency, bitops), accuracy, seconds, assignment, …"""


def summary(rows: Rows) -> dict:
    """ "uniform": each uniform network against the searched ones at its time; "objectives": each BitOps point
    against the latency objective's front at its accuracy; "points": mean and spread of every network."""
    return {"points": _points(rows), "uniform": _against_uniform(rows), "objectives": _objectives(rows)}


def spread(values: Iterable[float]) -> dict:
    """Mean, standard deviation (0 of one) and number."""
    found = list(values)
    return {"mean": mean(found), "deviation": stdev(found) if len(found) > 1 else 0.0, "seeds": len(found)}


def _of(rows: Rows, kind: str) -> dict[str, dict[int, Mapping]]:
    """Name → seed → row."""
    found: dict[str, dict[int, Mapping]] = {}
    for row in rows:
        if row["kind"] == kind:
            found.setdefault(row["name"], {})[row["seed"]] = row
    return found


def _points(rows: Rows) -> list[dict]:
    return [
        {
            "name": name,
            "kind": kind,
            "accuracy": spread(r["accuracy"] for r in by_seed.values()),
            "seconds": spread(r["seconds"] for r in by_seed.values()),
            "predicted": spread(r["seconds"] / r["predicted"] for r in by_seed.values()),
        }
        for kind in ("uniform", "latency", "bitops")
        for name, by_seed in _of(rows, kind).items()
    ]


def _against_uniform(rows: Rows) -> list[dict]:
    """Each uniform network against the accuracy that the searched ones' front has at its measured time, by straight
    lines between its points; `target` is the network that was searched for its time, as it came out."""
    searched, found = _of(rows, "latency"), []
    uniform = _of(rows, "uniform")
    for name, by_seed in uniform.items():
        fronts = {s: front(_searched(rows, uniform, s)) for s in by_seed}
        at = {s: accuracy_at(fronts[s], by_seed[s]["seconds"]) for s in by_seed}
        both = [s for s in sorted(by_seed) if at[s] is not None]
        other = searched.get(f"latency-{name}", {})
        if not both:
            continue
        found.append(
            {
                "name": name,
                "uniform": spread(by_seed[s]["accuracy"] for s in both),
                "searched": spread(at[s] for s in both),
                "gain": spread(at[s] - by_seed[s]["accuracy"] for s in both),
                "seconds": spread(by_seed[s]["seconds"] for s in both),
                "wins": sum(at[s] > by_seed[s]["accuracy"] for s in both),
                "losses": sum(at[s] < by_seed[s]["accuracy"] for s in both),
                "target": {
                    "accuracy": spread(r["accuracy"] for r in other.values()),
                    "time": spread(r["seconds"] / by_seed[s]["seconds"] for s, r in other.items()),
                }
                if other
                else None,
            }
        )
    return found


def _searched(rows: Rows, uniform: Mapping[str, Mapping[int, Mapping]], seed: int) -> list[Mapping]:
    """The latency objective's networks of one seed, and the fastest uniform one, which every search can give."""
    floor = min(uniform, key=lambda n: min(r["seconds"] for r in uniform[n].values()), default=None)
    found = [r for r in rows if r["seed"] == seed and r["kind"] == "latency"]
    return found + ([uniform[floor][seed]] if floor and seed in uniform[floor] else [])


def front(rows: Iterable[Mapping]) -> list[tuple[float, float]]:
    """(accuracy, seconds) of those that no other equals or beats in both, fastest first."""
    kept: list[tuple[float, float]] = []
    for row in sorted(rows, key=lambda r: (r["seconds"], -r["accuracy"])):
        if not kept or row["accuracy"] > kept[-1][0]:
            kept.append((row["accuracy"], row["seconds"]))
    return kept


def time_at(points: Sequence[tuple[float, float]], accuracy: float) -> float | None:
    """Seconds at which a front reaches an accuracy: on the straight line between the two points around it; of its
    fastest point where that is accurate enough; None above its most accurate."""
    if points and accuracy <= points[0][0]:
        return points[0][1]
    for (a0, t0), (a1, t1) in itertools.pairwise(points):
        if accuracy <= a1:
            return t0 + (t1 - t0) * (accuracy - a0) / (a1 - a0)
    return None


def accuracy_at(points: Sequence[tuple[float, float]], seconds: float) -> float | None:
    """What a front reaches within a time, by straight lines; its best where there is more time; None below its
    fastest."""
    if not points or seconds < points[0][1]:
        return None
    for (a0, t0), (a1, t1) in itertools.pairwise(points):
        if seconds < t1:
            return a0 + (a1 - a0) * (seconds - t0) / (t1 - t0)
    return points[-1][0]


def _objectives(rows: Rows) -> list[dict]:
    """For each BitOps budget: its networks' time over that of the latency objective's front at the same accuracy."""
    uniform, found = _of(rows, "uniform"), []
    for name, by_seed in _of(rows, "bitops").items():
        ratios, times = [], []
        for seed, row in by_seed.items():
            reached = time_at(front(_searched(rows, uniform, seed)), row["accuracy"])
            times.append(row["seconds"])
            if reached is not None:
                ratios.append(row["seconds"] / reached)
        found.append(
            {
                "name": name,
                "accuracy": spread(r["accuracy"] for r in by_seed.values()),
                "seconds": spread(times),
                "ratio": spread(ratios) if ratios else None,
                "faster": sum(r > 1 for r in ratios),
                "not_reached": len(by_seed) - len(ratios),
            }
        )
    return found


# -- Markdown ----------------------------------------------------------------------------------------------------------
def markdown(found: Mapping) -> str:
    s = found["sizes"]
    lines = [
        f"{found['data']}: the first {s['train']} images of it to train on, {s['test']} to test with, "
        f"{s['side']}×{s['side']}; widths {', '.join(map(str, s['widths']))}, blocks "
        f"{', '.join(map(str, s['blocks']))}. {s['float_epochs']:g} epochs in float, then {s['epochs']:g} at the bits, "
        f"the same for all. {found['measured_on']['cpu']}, {found['measured_on']['threads']} thread; ± is the standard "
        "deviation over seeds.",
        "",
        "At the measured time of each uniform network, what the searched networks reach (on the front of the latency "
        "objective's networks and W1A1, between them by straight lines), and the network that was searched for that "
        "time by the latency table, as it came out:",
        "",
        "| uniform | its time | its accuracy | searched, at that time | gain, in points | seeds won, lost | "
        "searched for it | its time ÷ the uniform one's |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in found["uniform"]:
        aim = row["target"]
        lines.append(
            f"| {row['name'].upper()} | {_micro(row['seconds'])} | {_share(row['uniform'])} | "
            f"{_share(row['searched'])} | {100 * row['gain']['mean']:+.2f}{_spread(row['gain'], 100)} | "
            f"{row['wins']}, {row['losses']} | "
            + (f"{_share(aim['accuracy'])} | {aim['time']['mean']:.2f} |" if aim else "— | — |")
        )
    lines += [
        "",
        "The latency objective against BitOps, at the accuracy that the BitOps search reaches (on the latency "
        "objective's front, between its points by straight lines, W1A1 its fastest):",
        "",
        "| BitOps a multiply-accumulate | accuracy | time | its time ÷ the latency objective's | seeds faster |",
        "|---|---|---|---|---|",
    ]
    for row in found["objectives"]:
        ratio, left = row["ratio"], f"; {row['not_reached']} not reached" if row["not_reached"] else ""
        said = f"{ratio['mean']:.2f}{_spread(ratio)}" if ratio else "—"
        lines.append(
            f"| {row['name'].removeprefix('bitops-')} | {_share(row['accuracy'])} | {_micro(row['seconds'])} | {said} "
            f"| {row['faster']} of {row['accuracy']['seeds']}{left} |"
        )
    lines += ["", "All networks:", "", "| network | accuracy | time | measured ÷ predicted |", "|---|---|---|---|"]
    for row in found["points"]:
        lines.append(
            f"| {row['name']} | {_share(row['accuracy'])} | {_micro(row['seconds'])} | {row['predicted']['mean']:.2f} |"
        )
    return "\n".join([*lines, "", found["race"], ""])


def _spread(value: Mapping, factor: float = 1.0) -> str:
    """Nothing of a single seed."""
    return f" ± {factor * value['deviation']:.2f}" if value["seeds"] > 1 else ""


def _share(value: Mapping) -> str:
    return f"{value['mean']:.2%}{_spread(value, 100)}"


def _micro(value: Mapping) -> str:
    return f"{1e6 * value['mean']:.0f} µs"
