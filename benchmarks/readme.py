"""python -m benchmarks.readme: writes the README's tables from what was measured. Standard library only.

Between `<!-- NAME: … -->` and `<!-- /NAME -->` of README.md come, for `benchmarks`, benchmarks/results/benchmarks.md,
and for `demo`, the table of runs/demo/report.json. A source that does not exist leaves its part as it is.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "benchmarks.md"
REPORT = ROOT / "runs" / "demo" / "report.json"


def demo_markdown(report: dict) -> str:
    """Accuracy, time and ratio of each network of a demo's report."""
    data, machine = report["data"], report["machine"]
    lines = [
        f"On {machine['cpu']}, {report['threads']} thread{'s' * (report['threads'] > 1)}; {data['name']}, "
        f"{data['test']} test images; {report['verify']['summary']}:",
        "",
        "| network | accuracy | an image | the bundle is faster by |",
        "|---|---|---|---|",
    ]
    for label, accuracy in report["accuracy"].items():
        timing, ratio = report["timing"]["timings"].get(label), report["timing"]["ratio"].get(label)
        time = f"{timing['seconds'] * 1e6:.0f} µs" if timing else ""
        lines.append(f"| {label} | {accuracy:.2%} | {time} | {f'{ratio:.2f}×' if ratio else ''} |")
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
    parser.add_argument("--results", type=Path, default=RESULTS, help="default: %(default)s")
    parser.add_argument("--report", type=Path, default=REPORT, help="default: %(default)s")
    options = parser.parse_args(arguments)
    text, written = options.readme.read_text(), []
    if options.results.exists():
        text = replaced(text, "benchmarks", options.results.read_text())
        written.append(str(options.results))
    if options.report.exists():
        text = replaced(text, "demo", demo_markdown(json.loads(options.report.read_text())))
        written.append(str(options.report))
    if not written:
        print(f"neither {options.results} nor {options.report} exists: run make bench or make demo", file=sys.stderr)
        return 2
    options.readme.write_text(text)
    print(f"{options.readme}: tables of {' and '.join(written)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
