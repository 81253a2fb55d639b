"""A run's folder → report.html and report.json. jinja2 fills the page; everything that comes from files is escaped."""

from __future__ import annotations

import json
import math
import os
import shlex
from pathlib import Path

from mpcompile import __version__
from mpcompile.errors import MissingDependency, UsageError
from mpcompile.files import atomic_path, check_writable
from mpcompile.report import figures, findings, words
from mpcompile.report.read import SearchRun, read

KINDS = (
    ("searched", "searched bits, by layer"),
    ("uniform", "uniform bits"),
    ("int8", "ONNX Runtime int8"),
    ("float", "ONNX Runtime fp32"),
)
PHASES = {
    "latency table": "the latency table",
    "search": "searching",
    "train": "training, baselines and searched networks",
    "measure": "compiling and measuring",
    "check": "checking: reference, answers, time by layer",
    "quantize": "quantizing the int8 baseline",
    "race": "the race of all networks",
}


def require() -> None:
    """Raises MissingDependency where a page cannot be made."""
    from importlib.util import find_spec

    if find_spec("jinja2") is None:
        raise MissingDependency('a report needs jinja2: pip install "mpcompile[report]"')


def outputs(output: str | os.PathLike) -> tuple[Path, Path]:
    """The page's path and that of the JSON beside it. Raises UsageError where they cannot be written, or the latter
    would take the place of a file that is no report."""
    page = Path(output)
    beside = page.with_suffix(".json")
    if beside == page:
        raise UsageError(f"{page} is the JSON's own name: give the page another suffix, such as .html")
    for path in (page, beside):
        check_writable(path)
    if beside.exists():
        try:
            is_report = "report" in json.loads(beside.read_text(encoding="utf-8"))
        except (OSError, ValueError, TypeError):
            is_report = False
        if not is_report:
            raise UsageError(f"cannot write {page}: {beside} beside it would be replaced, and it is no report")
    return page, beside


def write_report(run_dir: str | os.PathLike, output: str | os.PathLike) -> dict:
    """Writes the page of a search's folder to `output`, and the same numbers as JSON beside it; returns those.

    An unfinished run gives a page that says what is missing. Raises UsageError where `run_dir` is no run or `output`
    cannot be written, ModelError where a file of the run is damaged, MissingDependency.
    """
    require()
    page, beside = outputs(output)
    run = read(Path(run_dir))
    found = findings.report(run)
    text = render(run, found, beside.name)
    for path, content in ((page, text), (beside, json.dumps(found, indent=1) + "\n")):
        with atomic_path(path) as temporary:
            temporary.write_text(content, encoding="utf-8")
    return found


def render(run: SearchRun, found: dict, json_name: str = "report.json") -> str:
    """The page. `found`: findings.report of the run."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    folder = Path(__file__).parent
    pages = Environment(loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined)
    pages.filters |= {
        name: getattr(words, name) for name in ("share", "time", "ratio", "percent", "number", "duration")
    }
    pages.filters |= {"gain": _gain, "unbroken": words.unbroken}
    about, names = run.about, {name: d["label"] for name, d in found["derived"].items()}
    assigned = _by_time([p for p in run.points if p["assignment"]], found)
    detailed = [(p, found["layers"][p["name"]]) for p in assigned if p["kind"] == "searched" and p["layers"]]
    spent = _phases(run)
    options = [
        (f"{section}.{key}", _value(value))
        for section, table in about["config"].items()
        for key, value in (table.items() if isinstance(table, dict) else [])
    ]
    front = figures.front(run)
    return pages.get_template("page.html").render(
        version=__version__,
        style=_safe_style(folder),
        title=f"Search of bitwidths: {about['network']['name']} on {about['data']['name']}",
        r=found,
        data=about["data"],
        machine=about["machine"],
        network=about["network"],
        threads=_threads(about["machine"].get("threads", "?")),
        front=front,
        said="; ".join(m["title"] for m in front["marks"]) if front else "",
        kinds=[(kind, said) for kind, said in KINDS if any(p["kind"] == kind for p in run.points)],
        rows=_by_time(run.points, found),
        assigned=assigned,
        heat=lambda w, a: round(math.log2(w * a + 1) / 6, 3),
        detailed=[(p, rows, _longest(rows)) for p, rows in detailed if rows],
        networks=figures.networks(run),
        layer_figure=figures.layers(found["layers"], names, {p["name"]: p["kind"] for p in run.points}),
        predicted=_predicted(found["prediction"]),
        facts=_facts(run),
        options=options,
        machine_facts=[
            *((name, _value(value)) for name, value in about["machine"].items()),
            *((name, _value(value)) for name, value in about["versions"].items()),
        ],
        phases=spent,
        total=sum(seconds for _, seconds in spent),
        commands=_commands(run),
        json_name=json_name,
    )


def _safe_style(folder: Path):
    from markupsafe import Markup

    return Markup((folder / "style.css").read_text(encoding="utf-8"))  # ours: nothing of the run is in it


def _by_time(points: list[dict], found: dict) -> list[dict]:
    """Fastest first; those without a time last."""
    return sorted(points, key=lambda p: (found["derived"][p["name"]]["seconds"] or math.inf, p["name"]))


def _longest(rows: list[dict]) -> float:
    return max(max(row["measured"] or 0.0, row["predicted"] or 0.0) for row in rows) or 1.0


def _threads(count) -> str:
    return f"{count} thread{'s' * (str(count) != '1')}"


def _gain(gain: float, images: int) -> str:
    return f"{100 * gain:+.{words.accuracy_digits(images)}f} points"


def _value(value) -> str:
    """An option's value as a reader takes it."""
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value) if value != "" else "none"


def _predicted(found: dict) -> str:
    """The errors in a sentence."""
    parts = [
        f"{said} {100 * found[key]:.1f} %"
        for key, said in (
            ("networks_raw", "of whole networks by the latency table alone"),
            ("networks_calibrated", "calibrated by the networks measured before"),
            ("layers", f"of the {found['layer_count']} layers in them"),
        )
        if found[key] is not None
    ]
    return f"Median error: {', '.join(parts)}." if parts else ""


def _facts(run: SearchRun) -> list[tuple[str, str]]:
    """Objective, budgets and recipe in words."""
    about = run.about
    c, data = about["config"], about["data"]
    s, objective = c["search"], c["objective"]
    budgets = objective["targets"] or [f"weight {w:g}" for w in objective["weights"]]
    goal = {"latency": "expected latency over the latency table", "bitops": "BitOps"}[objective["kind"]]
    macs = sum(layer["macs"] for layer in about["network"]["layers"])
    return [
        ("objective", f"cross entropy and {goal}"),
        ("budgets", ", ".join(budgets) + _explained(budgets)),
        ("method", f"{s['method']}, seed {c['seed']}"),
        ("candidates", f"weights {_value(s['weights'])} bits, inputs {_value(s['activations'])} bits"),
        (
            "network",
            f"{about['network']['name']}, {len(about['network']['layers'])} layers, "
            f"{macs / 1e6:.1f} M multiply-accumulates an image",
        ),
        (
            "data",
            f"{data['name']}: {data['train']} images to train on, {data['test']} to test with, "
            f"{data['classes']} classes, {'×'.join(map(str, data['image']))}; sha256 {data['sha256']}",
        ),
        ("search", f"{s['epochs']:g} epochs after {s['warmup']:g} of warm-up, batches of {s['batch']}"),
        (
            "training",
            f"the float network for {c['pretrain']['epochs']:g} epochs; from it all others by one recipe, "
            f"{c['retrain']['epochs']:g} epochs at their bits, whoever chose them",
        ),
        ("int8", "the float network, quantized by ONNX Runtime (static, QDQ, per channel) without training"),
    ]


def _explained(budgets: list[str]) -> str:
    """What budgets that are no amounts stand for."""
    found = []
    if any("%" in b for b in budgets):
        found.append("%: of the way from the fewest bits' cost to the most bits'")
    if any(b.lower().startswith("w") and not b.startswith("weight") for b in budgets):
        found.append("w2a2 and the like: what such a uniform network costs")
    return f" ({'; '.join(found)})" if found else ""


def _phases(run: SearchRun) -> list[tuple[str, float]]:
    """Seconds by kind of phase, in their order."""
    spent: dict[str, float] = {}
    for name, seconds in (run.phases or {"seconds": {}})["seconds"].items():
        said = next((said for kind, said in PHASES.items() if name.startswith(kind)), name)
        spent[said] = spent.get(said, 0.0) + seconds
    return list(spent.items())


def _commands(run: SearchRun) -> list[str]:
    """Shell lines; RUN is the folder's own name."""
    folder = run.path.resolve().name
    best = max((p for p in run.points if p["kind"] == "searched"), key=lambda p: p["accuracy"], default=None)
    lines = [["mpcompile", "search", run.about["name"], "-o", folder]]
    if best:
        point = f"{folder}/points/{best['name']}"
        lines.append(["mpcompile", "verify", f"{point}/model.onnx", f"{point}/model.mpc"])
        bench = ["mpcompile", "bench", f"{point}/model.mpc", "--threads", str(run.about["machine"].get("threads", 1))]
        for other in ("int8", "float"):
            if any(p["name"] == other for p in run.points):
                bench += ["--vs-onnx", f"{folder}/points/{other}/model.onnx"]
        lines.append(bench)
    lines.append(["mpcompile", "report", folder, "-o", f"{folder}/report.html"])
    return [shlex.join(line) for line in lines]
