"""python -m benchmarks.readme: writes the README's tables from what was measured.

Between `<!-- NAME: … -->` and `<!-- /NAME -->` of README.md come, for `summary`, `networks` and `search`, the file of that
name in benchmarks/results; for `demo`, the table of runs/demo/report.json; for `boards`, what targets/*.toml expect. A
source that does not exist leaves its part as it is, and is named with the command that makes it.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

from benchmarks import boards
from mpcompile.errors import MpError
from mpcompile.files import atomic_path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
REPORT = ROOT / "runs" / "demo" / "report.json"
MADE_BY = {
    "summary": "python -m benchmarks",
    "networks": "python -m benchmarks --only networks",
    "search": "python -m benchmarks.search_figures",
    "demo": "make demo",
}
"""Part of README.md that was measured → the command that makes its source."""


def demo_markdown(report: dict) -> str:
    """Accuracy and time of each network of the demo's report, fastest first."""
    run, derived = report["run"], report["derived"]
    threads, data = run["machine"]["threads"], run["data"]
    side = "×".join(map(str, run["data"]["image"][1:]))
    lines = [
        f"On {run['machine']['cpu']}, {threads} thread{'s' * (threads > 1)}; {data['name']}, {side}, {data['train']} "
        f"images to train on, {data['test']} to test with. {report['headline']} {' '.join(report['summary'])}",
        "",
        "| network | accuracy | an image | as fast as ONNX Runtime int8 |",
        "|---|---|---|---|",
    ]
    for point in sorted(report["points"], key=lambda p: derived[p["name"]]["seconds"]):
        found = derived[point["name"]]
        ratio = f"{found['faster_than_int8']:.2f}×" if found["faster_than_int8"] else ""
        lines.append(f"| {found['label']} | {point['accuracy']:.1%} | {found['seconds'] * 1e6:.0f} µs | {ratio} |")
    return "\n".join(lines) + "\n"


def replaced(text: str, name: str, content: str) -> str:
    """`text` with `content` between the marks of `name`. Raises ValueError where it has no such marks."""
    found = re.search(rf"(<!-- {name}\b[^>]*-->\n)(.*?)(<!-- /{name} -->)", text, re.DOTALL)
    if not found:
        raise ValueError(f"there are no marks <!-- {name} --> and <!-- /{name} -->")
    return text[: found.start()] + f"{found[1]}\n{content.strip()}\n\n{found[3]}" + text[found.end() :]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.readme", description=__doc__.splitlines()[0])
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md")
    parser.add_argument("--results", type=Path, default=RESULTS, help="a folder (default: %(default)s)")
    parser.add_argument("--report", type=Path, default=REPORT, help="default: %(default)s")
    options = parser.parse_args(arguments)
    sources = {name: options.report if name == "demo" else options.results / f"{name}.md" for name in MADE_BY}
    absent = {name: source for name, source in sources.items() if not source.exists()}
    if absent == sources:
        print(
            f"neither tables in {options.results} nor {options.report} exist: run make bench or make demo",
            file=sys.stderr,
        )
        return 2
    try:
        text = replaced(options.readme.read_text(), "boards", boards.expected())
        for name in sources.keys() - absent.keys():
            content = sources[name].read_text()
            text = replaced(text, name, demo_markdown(json.loads(content)) if name == "demo" else content)
        with atomic_path(options.readme) as temporary:
            temporary.write_text(text)
    except (OSError, ValueError, MpError) as error:
        print(f"{options.readme} is left as it was: {error}", file=sys.stderr)
        return 2
    for name, source in sources.items():
        print(
            f"{options.readme}: {name} "
            + (
                f"is left as it was: there is no {source} ({MADE_BY[name]} writes it)"
                if name in absent
                else f"from {source}"
            )
        )
    print(f"{options.readme}: boards from targets/*.toml")
    return 0


if __name__ == "__main__":
    sys.exit(main())
