"""The wheel: every room and board is in it, under `mpcompile` alone; pins agree between the files that name them."""

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.patience import PATIENCE

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def pins(lines) -> dict[str, str]:
    return {
        m[1].lower().replace("_", "-"): m[2]
        for line in lines
        if (m := re.fullmatch(r"([\w.-]+)==([\w.+]+)", line.strip()))
    }


EXTRAS = [d for extra in PROJECT["project"]["optional-dependencies"].values() for d in extra]
CONSTRAINTS = pins((ROOT / "constraints.txt").read_text().splitlines())


def test_every_package_is_listed():
    folders = {".".join(p.parent.relative_to(ROOT).parts) for p in (ROOT / "mpcompile").rglob("__init__.py")}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == folders | {"mpcompile.schedules", "mpcompile.targets"}


def test_pins_agree():
    from mpcompile.doctor import PINS

    named = pins(PROJECT["project"]["dependencies"] + EXTRAS)
    assert named.items() <= CONSTRAINTS.items() and PINS.items() <= named.items()
    every = [re.split(r"[<>=\[]", d)[0].lower() for d in PROJECT["project"]["dependencies"] + EXTRAS]
    assert set(every) - {"mpcompile"} <= set(CONSTRAINTS)


def tracked() -> list[str]:
    """What belongs to the checkout, new files included, ignored ones not."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return [name for name in listed.stdout.splitlines() if (ROOT / name).exists()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    """Built from a copy, so that the checkout gets no build folder."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in tracked():
        if name.startswith(("mpcompile/", "schedules/", "targets/", "tests/unit/")) or "/" not in name:
            copy = folder / "source" / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes((ROOT / name).read_bytes())
    code = "import setuptools.build_meta as b, sys; print(b.build_wheel(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        cwd=folder / "source",
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    return zipfile.ZipFile(next(folder.glob("*.whl")))


def test_only_mpcompile_lands_in_site_packages(wheel):
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {t for t in tops if not t.endswith(".dist-info")} == {"mpcompile"}


def test_everything_is_in_the_wheel(wheel):
    """Every file of the three folders that belongs to the source: code, boards, records, C sources, report's page."""
    names = set(wheel.namelist())
    belongs = [name for name in tracked() if name.startswith(("mpcompile/", "schedules/", "targets/"))]
    assert len(belongs) > 100
    for name in belongs:
        assert (name if name.startswith("mpcompile/") else f"mpcompile/{name}") in names
    assert any(name.endswith("LICENSE") for name in names)


def test_the_wheel_works_without_the_checkout(wheel, tmp_path):
    """Unpacked alone, with the dependencies of this environment: boards are found, the command line answers."""
    wheel.extractall(tmp_path / "site")
    code = (
        "sys.path.insert(0, sys.argv[1]); import mpcompile; assert mpcompile.__file__.startswith(sys.argv[1])\n"
        "from mpcompile.cli import main; sys.exit(main(['targets']))"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-S",
            "-c",
            "import sys; sys.path += sys.argv[2:]\n" + code,
            str(tmp_path / "site"),
            *[p for p in sys.path if "site-packages" in p],
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
    )
    assert done.returncode == 0, done.stderr
    assert "zen5" in done.stdout


def test_the_checkout_works_without_an_installation():
    """As where `pip install .` was typed and Python is started in the checkout, whose folder it then imports."""
    code = (
        "import sys; sys.path += sys.argv[1:]\n"
        "from mpcompile import schedules, targets\n"
        "print(targets.__file__, schedules.__file__, targets.__name__)"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code, *[p for p in sys.path if "site-packages" in p]],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
    )
    where = f"{ROOT / 'targets' / '__init__.py'} {ROOT / 'schedules' / '__init__.py'} mpcompile.targets"
    assert done.stdout.strip() == where, done.stderr
