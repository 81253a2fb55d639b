"""What a run's numbers say, by rules that do not look at who wins: ratios, comparisons, errors of prediction.

An accuracy's interval is Wilson's for 95 % over the test images. Latencies are the race's where there was one; before,
each point's own, which were taken at different moments.
"""

from __future__ import annotations

import math
from statistics import median

from mpcompile.report import words
from mpcompile.report.read import SearchRun

Z95 = 1.959964
VERSION = 1
"""Of report.json."""


def report(run: SearchRun) -> dict:
    """Everything that the page shows, as JSON: `points`, `front` and `calibration` as in front.json; `derived` and
    `layers` by point's name."""
    found = {
        "report": VERSION,
        "headline": headline(run),
        "summary": summary(run),
        "missing": run.missing,
        "raced": run.raced,
        "points": run.points,
        "front": run.front,
        "calibration": run.calibration,
        "derived": {p["name"]: derived(p, run) for p in run.points},
        "against_uniform": against_uniform(run),
        "beaten": beaten(run),
        "layers": {p["name"]: layers(p, run) for p in run.points if p["layers"]},
        "race": run.race,
        "run": run.about,
        "phases": run.phases,
        "config": run.config,
    }
    found["prediction"] = prediction(run, found["layers"])
    return found


def seconds(point: dict, run: SearchRun) -> float | None:
    """What it is compared by."""
    return point["raced"] if run.raced else point["measured"]


def time_of(point: dict, run: SearchRun) -> float:
    """`seconds` of a point that has some."""
    found = seconds(point, run)
    assert found is not None, f"{point['name']} was not timed"
    return found


def interval(share: float, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of `count`."""
    middle = (share + Z95**2 / (2 * count)) / (1 + Z95**2 / count)
    half = Z95 / (1 + Z95**2 / count) * math.sqrt(share * (1 - share) / count + Z95**2 / (4 * count**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def derived(point: dict, run: SearchRun) -> dict:
    """Of one point: label, seconds, their quartiles, ratios, interval of the accuracy, errors of prediction, whether it
    is exact."""
    own = seconds(point, run)
    timing = run.timing(point["name"])
    checked = run.checked.get(point["name"], {})

    def against(kind: str) -> float | None:
        other = next((seconds(p, run) for p in run.points if p["kind"] == kind), None)
        return other / own if own and other else None

    def error(predicted: float | None) -> float | None:
        return predicted / point["measured"] - 1 if predicted and point["measured"] else None

    return {
        "label": words.label(point),
        "seconds": own,
        "low": timing.get("low"),
        "high": timing.get("high"),
        "faster_than_int8": against("int8"),
        "faster_than_float": against("float"),
        "accuracy_interval": interval(point["accuracy"], run.about["data"]["test"]),
        "error_calibrated": error(point["predicted"]),
        "error_raw": error(point["raw"]),
        "on_front": point["name"] in run.front,
        "verify": checked.get("verify"),
    }


# -- comparisons -------------------------------------------------------------------------------------------------------
def _timed(run: SearchRun, kind: str) -> list[dict]:
    """Points of a kind that have a time, fastest first."""
    return sorted((p for p in run.points if p["kind"] == kind and seconds(p, run)), key=lambda p: time_of(p, run))


def beats(one: dict, other: dict, run: SearchRun) -> bool:
    """At least as fast and as accurate, one of them strictly, and not of the same bits: then it is the same network, and
    the race's noise says which takes longer."""
    if one["assignment"] is not None and one["assignment"] == other["assignment"]:
        return False
    a, b = (time_of(one, run), -one["accuracy"]), (time_of(other, run), -other["accuracy"])
    return a != b and a[0] <= b[0] and a[1] <= b[1]


def beaten(run: SearchRun) -> dict[str, list[str]]:
    """Names of the uniform networks that a searched one beats, and of the searched ones that a uniform one beats, fastest
    first."""
    searched, uniform = _timed(run, "searched"), _timed(run, "uniform")
    return {
        "uniform": [u["name"] for u in uniform if any(beats(s, u, run) for s in searched)],
        "searched": [s["name"] for s in searched if any(beats(u, s, run) for u in uniform)],
    }


def against_uniform(run: SearchRun) -> list[dict]:
    """Each uniform network against the most accurate searched one that takes no longer, and against the fastest
    searched one that is no less accurate."""
    found = []
    for u in _timed(run, "uniform"):
        quick = [s for s in _timed(run, "searched") if time_of(s, run) <= time_of(u, run)]
        good = [s for s in _timed(run, "searched") if s["accuracy"] >= u["accuracy"]]
        best = max(quick, key=lambda s: s["accuracy"], default=None)
        fastest = good[0] if good else None
        found.append(
            {
                "uniform": u["name"],
                "no_slower": best and best["name"],
                "accuracy_gain": best and best["accuracy"] - u["accuracy"],
                "no_less_accurate": fastest and fastest["name"],
                "speedup": fastest and time_of(u, run) / time_of(fastest, run),
            }
        )
    return found


def chance(one: dict, other: dict, count: int) -> float:
    """What two shares of `count` images may differ by at 95 %, were they drawn apart; on the same images it is less."""
    return Z95 * math.sqrt(sum(p["accuracy"] * (1 - p["accuracy"]) for p in (one, other)) / count)


def headline(run: SearchRun) -> str:
    """One sentence: the searched network and the uniform one that are nearest in latency, then the most accurate
    searched one beside int8."""
    searched, uniform, int8 = (_timed(run, kind) for kind in ("searched", "uniform", "int8"))
    count = run.about["data"]["test"]
    if not searched:
        return "No searched network is finished yet."
    parts = []
    if uniform:
        s, u = min(
            ((s, u) for s in searched for u in uniform),
            key=lambda pair: abs(math.log(time_of(pair[0], run) / time_of(pair[1], run))),
        )
        parts.append(_pair(s, u, run, count))
    best = max(searched, key=lambda p: (p["accuracy"], -time_of(p, run)))
    if int8:
        own, other = time_of(best, run), time_of(int8[0], run)
        speed = f"{words.ratio(max(own, other) / min(own, other))} as {'fast' if own <= other else 'slow'}"
        gain = best["accuracy"] - int8[0]["accuracy"]
        parts.append(
            f"the most accurate searched network ({words.share(best['accuracy'], count)} in {words.time(own)}) is "
            f"{speed} as ONNX Runtime int8 ({words.time(other)}), with {_gain(gain, count)}"
        )
    if not parts:
        listed = ", ".join(f"{words.share(p['accuracy'], count)} in {words.time(time_of(p, run))}" for p in searched)
        parts.append(f"there is nothing to compare the searched networks with: {listed}")
    text = "; ".join(parts) + "."
    return text[0].upper() + text[1:]


def _pair(s: dict, u: dict, run: SearchRun, count: int) -> str:
    ts, tu = time_of(s, run), time_of(u, run)
    same = abs(ts / tu - 1) <= 0.05
    if same:
        where = f"at the latency of uniform {words.label(u)} ({words.time(tu)}) the searched network ({words.time(ts)})"
    else:
        where = (
            f"nearest in latency, the searched network takes {words.time(ts)} and uniform {words.label(u)} "
            f"{words.time(tu)}: the searched one"
        )
    gain = s["accuracy"] - u["accuracy"]
    text = f"{where} has {words.share(s['accuracy'], count)} against {words.share(u['accuracy'], count)}"
    if gain and abs(gain) < chance(s, u, count):
        text += f", a difference that {count} test images cannot tell from chance"
    return text


def _gain(gain: float, count: int) -> str:
    if float(f"{abs(100 * gain):.{words.accuracy_digits(count)}f}") == 0:
        return "the same accuracy"
    return f"{words.points(gain, count)} {'more' if gain > 0 else 'less'} accuracy"


def summary(run: SearchRun) -> list[str]:
    """Further sentences: who beats whom, whether every bundle is exact, what is missing."""
    found = []
    searched, uniform = _timed(run, "searched"), _timed(run, "uniform")
    if searched and uniform:
        lost, won = (len(names) for names in beaten(run).values())
        found.append(
            f"{lost} of {len(uniform)} uniform networks {'is' if lost == 1 else 'are'} beaten by a searched one (no "
            f"slower, no less accurate, not the same); {won} of {len(searched)} searched networks "
            f"{'is' if won == 1 else 'are'} beaten by a uniform one."
        )
    verified = {n: c["verify"] for n, c in run.checked.items() if c.get("verify")}
    if wrong := [n for n, v in verified.items() if not v["equal"]]:
        found.append(f"NOT EXACT: {', '.join(wrong)} — {verified[wrong[0]]['summary']}.")
    elif verified:
        samples = min(v["samples"] for v in verified.values())
        found.append(
            f"All {len(verified)} compiled networks equal the exact reference in every buffer, on {samples} test "
            f"image{'s' * (samples != 1)} each."
        )
    if not run.raced and any(seconds(p, run) for p in run.points):
        found.append("Latencies were taken at different moments: the race, which makes them comparable, is missing.")
    return found


# -- predictions -------------------------------------------------------------------------------------------------------
def layers(point: dict, run: SearchRun) -> list[dict]:
    """A row a fused layer: name, parts (each contraction's name, w, a, macs, searched, family), predicted and measured
    seconds."""
    profile = run.checked.get(point["name"], {}).get("profile") or {"layers": []}
    rows = {row["name"]: row for row in profile["layers"]}
    names = [*rows, *(n for n in point["layers"] if n not in rows)]
    inner: dict[str, list[dict]] = {}
    for layer in run.about["network"]["layers"]:
        inner.setdefault(layer["fused"], []).append(layer)
    found = []
    for name in names:
        time = rows.get(name, {}).get("time") or {}
        parts = [_contraction(layer, point, rows.get(name, {})) for layer in inner.get(name, [])]
        found.append(
            {
                "name": name,
                "parts": parts,
                "predicted": point["layers"].get(name),
                "measured": time.get("seconds"),
                "low": time.get("low"),
                "high": time.get("high"),
            }
        )
    return found


def _contraction(layer: dict, point: dict, row: dict) -> dict:
    """Its bits, and the kernel family that the bundle runs it with."""
    families = [
        part["family"]
        for part in row.get("parts", [])
        if part["input"] == layer["reads"] and part["kernel"][:2] == layer["shape"][:2]
    ]
    bits = point["assignment"]
    return {
        "name": layer["name"],
        "w": bits["weights"].get(layer["name"]),
        "a": bits["tensors"].get(layer["reads"]),
        "macs": layer["macs"],
        "searched": layer["searched"],
        "family": families[0] if families else None,
    }


def prediction(run: SearchRun, by_point: dict[str, list[dict]]) -> dict:
    """Median absolute relative errors: of whole networks, calibrated and raw, and of layers; None where nothing is
    known."""

    def middle(pairs) -> float | None:
        errors = [abs(p / m - 1) for p, m in pairs if p is not None and m]
        return median(errors) if errors else None

    rows = [row for rows in by_point.values() for row in rows]
    return {
        "networks_calibrated": middle((p["predicted"], p["measured"]) for p in run.points),
        "networks_raw": middle((p["raw"], p["measured"]) for p in run.points),
        "layers": middle((r["predicted"], r["measured"]) for r in rows),
        "layer_count": sum(bool(r["predicted"] is not None and r["measured"]) for r in rows),
    }
