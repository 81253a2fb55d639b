"""The documentation's site: it builds strictly and without a network, and a newcomer finds what is asked most."""

import posixpath
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from tests.examples.documents import DOCS, ROOT
from tests.patience import PATIENCE

pytest.importorskip("mkdocs")
pytest.importorskip("mkdocstrings")


class Links(HTMLParser):
    """The links of a page's article, and what a browser loads by itself for it."""

    def __init__(self, text: str):
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.inside = False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        if tag == "article":
            self.inside = True
        if tag == "a" and self.inside and found.get("href"):
            self.links.append(found["href"])
        if tag in ("script", "img", "iframe", "source") and found.get("src"):
            self.loaded.append(found["src"])
        if tag == "link" and found.get("rel") in ("stylesheet", "preconnect", "preload", "icon"):
            self.loaded.append(found["href"])

    def handle_endtag(self, tag):
        if tag == "article":
            self.inside = False


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """As `make docs` builds it, but elsewhere; with no way to any other machine."""
    folder = tmp_path_factory.mktemp("site")
    code = (
        "import socket, sys\n"
        "def refuse(*_, **__): raise OSError('the site must be built without a network')\n"
        "socket.socket.connect = refuse\n"
        "from mkdocs.__main__ import cli\n"
        "sys.path.insert(0, '.')\n"
        "cli(['build', '--strict', '--quiet', '--site-dir', sys.argv[1]])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return {str(p.relative_to(folder)): Links(p.read_text()) for p in folder.rglob("*.html")}


def test_nothing_is_loaded_from_elsewhere(site):
    assert len(site) > 25
    assert not [(page, url) for page, found in site.items() for url in found.loaded if re.match(r"(https?:)?//", url)]


def test_every_page_is_there(site):
    pages = {str(p.relative_to(DOCS).with_suffix(".html")) for p in DOCS.rglob("*.md")}
    assert pages | {"contributing.html", "changelog.html", "howto/detector.html", "howto/raspberry-pi.html"} <= set(
        site
    )


@pytest.mark.parametrize(
    "question, answer",
    [
        ("where is the padding handled", "mpcompile/kernels/halo.py"),
        ("where is the latency of a layer kept", "mpcompile/latency/table.py"),
        ("how do I add an operator", "mpcompile/frontend"),
    ],
)
def test_two_clicks_from_the_map(site, question, answer):
    """One to the page that explains it, one to the code. The map asks the question in these words."""
    rows = re.findall(r"^\| ([^|]+) \|(.*)\|$", (DOCS / "index.md").read_text(), re.MULTILINE)
    (row,) = (links for asked, links in rows if asked.strip().rstrip("?").lower() == question.lower())
    first = [link.replace(".md", ".html") for link in re.findall(r"\]\(([^)]+)\)", row)]
    assert first and all(link in site["index.html"].links for link in first)
    second = {link for page in first for link in site[posixpath.normpath(page.split("#")[0])].links}
    assert any(link.endswith(f"/main/{answer}") for link in second)


def test_the_reference_is_whole(site):
    """Each function that mpcompile offers, each class that it returns, has a place of its own in the API's page."""
    import mpcompile

    anchors = set(site["reference/api.html"].links)
    for name in set(mpcompile.__all__) - {"__version__"}:
        function = mpcompile.offered(name)  # what bears a room's name is called through the room
        assert f"#{function.__module__}.{function.__qualname__}" in anchors, name
    assert "#mpcompile.runtime.bundle.Bundle" in anchors and "#mpcompile.errors.ModelError" in anchors
