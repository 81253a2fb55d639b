"""The wheel: every room and board is in it, under `mpcompile` alone; pins agree between the files that name them."""

import os
import re
import shutil
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
    found = {".".join(Path(name).parts[:-1]) for name in files() if name.endswith("__init__.py")}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == found


def test_pins_agree():
    from mpcompile.cli.doctor import PINS

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


def files() -> list[str]:
    """The package's own files, as they are called in it: two rooms stand at the top and are linked."""
    names = [f"mpcompile/{n}" if n.startswith(("schedules/", "targets/")) else n for n in tracked()]
    return [name for name in names if name.startswith("mpcompile/") and (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    """Built from a copy, so that the checkout gets no build folder."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in tracked():
        if name.startswith(("mpcompile/", "schedules/", "targets/", "tests/unit/")) or "/" not in name:
            copy = folder / "source" / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy, follow_symlinks=False)
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
    """Every file of the package that belongs to the source: code, boards, records, C sources, report's page."""
    names, belongs = set(wheel.namelist()), files()
    assert len(belongs) > 100 and set(belongs) <= names
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
    package = ROOT / "mpcompile"
    where = f"{package / 'targets' / '__init__.py'} {package / 'schedules' / '__init__.py'} mpcompile.targets"
    assert done.stdout.strip() == where, done.stderr
