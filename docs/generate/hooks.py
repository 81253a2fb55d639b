"""What mkdocs calls while it builds: generated parts are put in, files that live elsewhere are shown as pages, and links
into the repository (`repo:PATH`) get its address, which stands in pyproject.toml alone."""

from __future__ import annotations

import posixpath
import re
import sys
import tomllib
from pathlib import Path

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from docs.generate import PARTS  # noqa: E402

URL = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]["Repository"]
ELSEWHERE = {
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
    "howto/detector.md": "examples/detector/README.md",
    "howto/raspberry-pi.md": "examples/raspberry_pi/README.md",
}
"""Page → the file of the repository that it shows."""


def on_config(config):
    config.repo_url, config.repo_name = URL, "mpcompile"
    return config


def on_files(files, config):
    for page, source in ELSEWHERE.items():
        files.append(File.generated(config, page, content=_elsewhere(page, source)))
    return files


def _elsewhere(page: str, source: str) -> str:
    """Its links are relative to where the file is: those to pages become so to this page, others lead into the
    repository."""
    here, pages = posixpath.dirname(source), {file: shown for shown, file in ELSEWHERE.items()}

    def link(found: re.Match) -> str:
        path = posixpath.normpath(posixpath.join(here, found[1]))
        shown = pages.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else "")
        return "](" + (posixpath.relpath(shown, posixpath.dirname(page) or ".") if shown else f"repo:{path}")

    text = (ROOT / source).read_text(encoding="utf-8")
    return re.sub(r"\]\((?!https?:|#)([^)#]+)", link, text)


def on_page_markdown(markdown, page, config, files):
    def part(found: re.Match) -> str:
        if found[1] not in PARTS:
            raise PluginError(f"{page.file.src_uri}: there is no generated part {found[1]}")
        return PARTS[found[1]]()

    def link(found: re.Match) -> str:
        path = ROOT / found[1].rstrip("/")
        if not path.exists():
            raise PluginError(f"{page.file.src_uri}: the repository has no {found[1]}")
        return f"]({URL}/{'tree' if path.is_dir() else 'blob'}/main/{found[1]}"

    markdown = re.sub(r"^<!-- generate: ([\w-]+) -->$", part, markdown, flags=re.MULTILINE)
    return re.sub(r"\]\(repo:([^)#]+)", link, markdown)
