"""Wheel and sdist: every room and board is in the wheel, under `mpcompile` alone, and all that the checkout has in the
sdist; pins, version and package are the same wherever they are named."""

import importlib.machinery
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.patience import PATIENCE
from tests.sources import package, sources

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
    found = {".".join(Path(name).parts[:-1]) for name in package() if name.endswith("__init__.py")}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == found


def test_pins_agree():
    from mpcompile.cli.doctor import PINS

    named = pins(PROJECT["project"]["dependencies"] + EXTRAS)
    assert named.items() <= CONSTRAINTS.items() and PINS.items() <= named.items()
    every = [re.split(r"[<>=\[]", d)[0].lower() for d in PROJECT["project"]["dependencies"] + EXTRAS]
    assert set(every) - {"mpcompile"} <= set(CONSTRAINTS)


def built(folder: Path, what: str, source: Path) -> Path:
    """The wheel or sdist of a folder of sources, by setuptools as pip calls it."""
    code = f"import setuptools.build_meta as b, sys; print(b.build_{what}(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], cwd=source, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    return folder / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """The checkout, whole, so that building leaves no folder in it."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in sources():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, path, follow_symlinks=False)
    return folder


@pytest.fixture(scope="module")
def wheel(copy, tmp_path_factory) -> zipfile.ZipFile:
    return zipfile.ZipFile(built(tmp_path_factory.mktemp("wheel"), "wheel", copy))


@pytest.fixture(scope="module")
def unpacked(copy, tmp_path_factory) -> Path:
    """The folder that an sdist unpacks to."""
    folder = tmp_path_factory.mktemp("sdist")
    with tarfile.open(built(folder, "sdist", copy)) as archive:
        archive.extractall(folder, filter="data")
    (found,) = (path for path in folder.iterdir() if path.is_dir())
    return found


def test_only_mpcompile_lands_in_site_packages(wheel):
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {t for t in tops if not t.endswith(".dist-info")} == {"mpcompile"}


def test_everything_is_in_the_wheel(wheel):
    """Every file of the package that belongs to the source: code, boards, records, C sources, report's page."""
    names, belongs = set(wheel.namelist()), package()
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


def test_the_sdist_is_the_checkout(unpacked):
    """Whole: code, tests, benchmarks, examples, documentation, what make and continuous integration run. What is a link in
    the checkout is a folder in it, so that mpcompile is a whole package as soon as it is unpacked."""
    names = {str(p.relative_to(unpacked)) for p in unpacked.rglob("*") if p.is_file()}
    wanted = {name for name in sources() if (ROOT / name).is_file()}
    assert {n.split("/")[0] for n in wanted} >= {"tests", "benchmarks", "examples", "docs", ".ci", "Makefile"}
    assert wanted <= names and set(package()) <= names
    more = {n for n in names - wanted - set(package()) if not n.startswith("mpcompile.egg-info/")}
    assert more == {"PKG-INFO", "setup.cfg"}
    for room in ("schedules", "targets"):
        assert not (unpacked / "mpcompile" / room).is_symlink()
    assert os.access(unpacked / ".ci" / "setup", os.X_OK)


def test_a_wheel_of_the_sdist_is_a_wheel_of_the_checkout(wheel, unpacked, tmp_path):
    """Byte for byte, but for the record, whose order is setuptools' own."""
    other = zipfile.ZipFile(built(tmp_path, "wheel", unpacked))
    names = sorted(wheel.namelist())
    assert sorted(other.namelist()) == names
    assert [n for n in names if wheel.read(n) != other.read(n) and not n.endswith("/RECORD")] == []


def test_type_checkers_see_one_package():
    """Every name of the package is a file under mpcompile/, linked rooms included, and none a module at the top, too."""
    for module in ("schedules", "targets"):
        assert (ROOT / "mpcompile" / module / "__init__.py").is_file()
    found = importlib.machinery.PathFinder.find_spec("mpcompile", [str(ROOT)])
    assert found.submodule_search_locations == [str(ROOT / "mpcompile")]
    assert "__path__" not in "".join(p.read_text() for p in (ROOT / "mpcompile").glob("*.py"))


def test_an_editable_install_is_the_checkout(tmp_path):
    """What setuptools writes for `pip install -e`: a finder, or a path file, that leads to the checkout's package."""
    folder = tmp_path / "site"
    code = "import setuptools.build_meta as b, sys; print(b.build_editable(sys.argv[1]))"
    source = tmp_path / "checkout"
    source.mkdir()
    for name in sources():
        if name.startswith(("mpcompile", "schedules/", "targets/")) or "/" not in name:
            path = source / name
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, path, follow_symlinks=False)
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=source, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    zipfile.ZipFile(tmp_path / done.stdout.splitlines()[-1]).extractall(folder)
    code = (
        "import site, sys; site.addsitedir(sys.argv[1]); sys.path += sys.argv[2:]\n"
        "from mpcompile import schedules, targets\n"
        "print(schedules.__file__, targets.__file__, 'schedules' in sys.modules, 'targets' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code, str(folder), *[p for p in sys.path if "site-packages" in p]],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
    )
    assert done.returncode == 0, done.stderr
    where = [str(source / "mpcompile" / room / "__init__.py") for room in ("schedules", "targets")]
    assert done.stdout.split() == [*where, "False", "False"]


def test_the_version_is_named_once(wheel):
    """In mpcompile/__init__.py; the wheel's comes from there, and the changelog has a section for it."""
    from mpcompile import __version__

    assert f"mpcompile-{__version__}.dist-info/METADATA" in wheel.namelist()
    assert "version" not in PROJECT["project"] and PROJECT["project"]["dynamic"] == ["version"]
    latest = re.search(r"^## (\S+?),? ", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert latest and latest[1] == __version__


def test_the_metadata_is_a_package_index_s(wheel):
    (name,) = (n for n in wheel.namelist() if n.endswith(".dist-info/METADATA"))
    text = wheel.read(name).decode()
    for line in ("Project-URL: Repository, ", "Classifier: Operating System :: POSIX :: Linux", "Keywords: "):
        assert f"\n{line}" in text
    assert text.rstrip().endswith((ROOT / "README.md").read_text().rstrip())


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
    folder = ROOT / "mpcompile"
    where = f"{folder / 'targets' / '__init__.py'} {folder / 'schedules' / '__init__.py'} mpcompile.targets"
    assert done.stdout.strip() == where, done.stderr
