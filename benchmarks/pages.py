"""python -m benchmarks.pages: writes the tables of docs/performance, and README's one, from what was measured.

Between `<!-- NAME: … -->` and `<!-- /NAME -->` of a page comes what its source holds: for `summary`, `networks`, `search`,
`exported`, `seeds` and `modules` the file of that name in benchmarks/results; for `figures`, README's, the ratios of
results/networks.json; for `demo`, the table of runs/demo/report.json; for `boards`, what targets/*.toml expect. A source
that does not exist leaves its part as it is, and is named with the command that makes it.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks import boards, whole_networks
from mpcompile.errors import MpError
from mpcompile.files import atomic_path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
REPORT = ROOT / "runs" / "demo" / "report.json"
DEMO = "demo"


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


def ratios(text: str) -> str:
    """networks.json as README's table."""
    return whole_networks.ratios(json.loads(text))


@dataclass(frozen=True)
class Part:
    """What stands between the marks of `name` in `page`: `markdown` of the text of `source`, a file of the results'
    folder, or for the demo its report. `made_by`: the command that makes the source."""

    name: str
    page: str
    source: str
    made_by: str
    markdown: Callable[[str], str] = str


PARTS = (
    Part("summary", "docs/performance/index.md", "summary.md", "python -m benchmarks"),
    Part("networks", "docs/performance/index.md", "networks.md", "python -m benchmarks --only networks"),
    Part("exported", "docs/performance/index.md", "exported.md", "python -m benchmarks.exported --write"),
    Part("figures", "README.md", whole_networks.FILE, "python -m benchmarks --only networks", ratios),
    Part("search", "docs/performance/search.md", "search.md", "python -m benchmarks.search_figures"),
    Part("modules", "docs/howto/tvm.md", "tvm_modules.md", "python -m benchmarks.tvm_modules"),
    Part("seeds", "docs/performance/demo.md", "demo_seeds.md", "python -m benchmarks.demo_seeds -o DIR --write"),
    Part(DEMO, "docs/performance/demo.md", "", "make demo", lambda text: demo_markdown(json.loads(text))),
)
BOARDS = Part("boards", "docs/performance/arm.md", "targets/*.toml", "")
"""Needs no measurement, so it is always written anew."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pages", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--root", type=Path, default=ROOT, help="where README.md and docs/ are (default: %(default)s)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="a folder (default: %(default)s)")
    parser.add_argument("--report", type=Path, default=REPORT, help="default: %(default)s")
    options = parser.parse_args(arguments)
    sources = {part: options.report if part.name == DEMO else options.results / part.source for part in PARTS}
    there = {part for part, source in sources.items() if source.exists()}
    if not there:
        print(
            f"neither tables in {options.results} nor {options.report} exist: run make bench or make demo",
            file=sys.stderr,
        )
        return 2
    texts: dict[Path, str] = {}
    page = options.root / BOARDS.page
    try:
        texts[page] = replaced(page.read_text(), BOARDS.name, boards.expected())
        for part in PARTS:
            if part in there:
                page = options.root / part.page
                texts[page] = replaced(
                    texts.get(page) or page.read_text(), part.name, part.markdown(sources[part].read_text())
                )
        for page, text in texts.items():
            with atomic_path(page) as temporary:
                temporary.write_text(text)
    except (OSError, ValueError, MpError) as error:
        print(f"{page} is left as it was: {error}", file=sys.stderr)
        return 2
    for part, source in sources.items():
        print(
            f"{part.page}: {part.name} "
            + (
                f"from {source}"
                if part in there
                else f"is left as it was: there is no {source} ({part.made_by} writes it)"
            )
        )
    print(f"{BOARDS.page}: {BOARDS.name} from {BOARDS.source}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
