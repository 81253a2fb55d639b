"""Bad input at the command line: one clear line, the exit code of its kind, no traceback, no partial output."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from mpcompile import cli
from mpcompile.cli import console, main
from mpcompile.errors import MissingDependency, ModelError, TargetError, UsageError
from mpcompile.files import atomic_path, output_folder
from tests.foreign_zip import use_foreign_compression
from tests.patience import SOON

USAGE, MODEL, TARGET, DEPENDENCY, INTERNAL, INTERRUPTED = 2, 3, 4, 5, 70, 130
ASLEEP = f"time.sleep({2 * SOON})\n"
"""Only a signal ends this in time."""


@pytest.fixture
def there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def complaint(capsys, *argv) -> tuple[int, str]:
    """(exit code, the one line on stderr)."""
    code = main([str(a) for a in argv])
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("mpcompile: "), lines
    return code, lines[0].removeprefix("mpcompile: ")


@pytest.mark.parametrize(
    "argv, told",
    [
        ([], "required: VERB"),
        (["conjure"], "invalid choice: 'conjure'"),
        (["run", "m.mpc"], "required: --input, --output"),
        (["bench", "m.mpc", "--threads", "many"], "invalid int value: 'many'"),
        (["compile"], "required: MODEL.onnx"),
        (["targets", "--speed"], "unrecognized arguments: --speed"),
    ],
)
def test_wrong_command_lines(capsys, there, argv, told):
    code, line = complaint(capsys, *argv)
    assert code == USAGE and told in line and "--help" in line
    assert not os.listdir(there)


@pytest.mark.parametrize(
    "verb, argv",
    [
        ("run", ["none.mpc", "--input", "x.npz", "--output", "y.npz"]),
        ("bench", ["none.mpc"]),
        ("inspect", ["none.mpc"]),
        ("inspect", ["none.onnx"]),
        ("compile", ["none.onnx", "-o", "none.mpc"]),
        ("verify", ["none.onnx", "none.mpc"]),
        ("profile", ["none.onnx"]),
    ],
)
def test_missing_files(capsys, there, verb, argv):
    code, line = complaint(capsys, verb, *argv)
    assert code == USAGE and "none." in line
    assert not os.listdir(there)


def test_files_of_another_kind(capsys, there):
    (there / "text.onnx").write_text("hello")
    (there / "text.mpc").write_text("hello")
    for argv in (["compile", "text.onnx"], ["inspect", "text.onnx"], ["inspect", "text.mpc"], ["bench", "text.mpc"]):
        code, line = complaint(capsys, *argv)
        assert code == MODEL and argv[1] in line
    assert sorted(os.listdir(there)) == ["text.mpc", "text.onnx"]


def test_unknown_targets(capsys, there):
    code, line = complaint(capsys, "targets", "commodore-64")
    assert code == TARGET and "there is no target commodore-64" in line and "zen4" in line
    (there / "odd.toml").write_text("cores = 3\n")
    code, line = complaint(capsys, "targets", "odd.toml")
    assert code == TARGET and "odd.toml" in line and "description: is missing" in line


@pytest.mark.parametrize("output, told", [("none/there.json", "there is no folder none"), (".", "it is a folder")])
def test_json_that_cannot_be_written(capsys, there, output, told):
    code, line = complaint(capsys, "targets", "zen4", "--json", output)
    assert code == USAGE and told in line


def test_a_folder_made_for_what_failed_is_removed_again(there):
    """With those above it; not what was there before, nor one in which something lies."""
    (there / "old").mkdir()
    for path in ("new/inner", "old/inner", "old"):
        with pytest.raises(ZeroDivisionError), output_folder(path) as folder:
            assert folder.is_dir()
            raise ZeroDivisionError
    assert sorted(there.rglob("*")) == [there / "old"]
    with pytest.raises(ZeroDivisionError), output_folder("new/inner") as folder:
        (folder / "kept").write_text("")
        raise ZeroDivisionError
    assert os.listdir("new/inner") == ["kept"]
    for path, told in (("new/inner/kept", "File exists"), ("new/inner/kept/x", "Not a directory")):
        with pytest.raises(UsageError, match=f"cannot make the folder {path}: {told}"), output_folder(path):
            pass
    with pytest.raises(UsageError, match="No such file"), output_folder("one/two", parents=False):
        pass
    with output_folder("made"):
        pass
    assert sorted(os.listdir(there)) == ["made", "new", "old"]


def test_output_is_checked_before_the_work(capsys, there, monkeypatch):
    """Before anything is read, measured or compiled."""
    code, line = complaint(capsys, "run", "none.mpc", "--input", "x.npz", "--output", "none/y.npz")
    assert code == USAGE and line == "cannot write none/y.npz: there is no folder none"
    code, line = complaint(capsys, "compile", "none.onnx", "-o", "none/m.mpc")
    assert code == USAGE and "there is no folder none" in line
    code, line = complaint(capsys, "profile", "none.onnx", "--bits", "w1a1")
    assert code == USAGE and "-o" in line


@pytest.mark.parametrize(
    "error, code",
    [
        (UsageError("one\ntwo"), USAGE),
        (ModelError("bad"), MODEL),
        (TargetError("bad"), TARGET),
        (MissingDependency("pip"), DEPENDENCY),
        (KeyboardInterrupt(), INTERRUPTED),
        (ZeroDivisionError("odd"), INTERNAL),
        (ModuleNotFoundError("no", name="onnx"), DEPENDENCY),
        (ModuleNotFoundError("no", name="mpcompile.gone"), INTERNAL),
    ],
)
def test_exit_codes(capsys, monkeypatch, error, code):
    def fail(args):
        raise error

    monkeypatch.setattr("mpcompile.cli.verbs.targets.work", fail)
    assert complaint(capsys, "targets")[0] == code
    assert main(["targets", "--debug"]) == code
    shown = capsys.readouterr().err
    assert ("Traceback" in shown) == (not isinstance(error, KeyboardInterrupt))


def test_internal_faults_say_so(capsys, monkeypatch):
    def fail(args):
        raise ZeroDivisionError("first\n\nlast words\n")

    monkeypatch.setattr("mpcompile.cli.verbs.targets.work", fail)
    _, line = complaint(capsys, "targets")
    assert line == "a fault of mpcompile itself: ZeroDivisionError: last words; --debug shows where"


def test_help_names_every_verb_and_code(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"    {verb} " in shown for verb in cli.VERBS) and "130 interrupted" in " ".join(shown.split())
    for verb in cli.VERBS:
        assert main([verb, "--help"]) == 0
        assert "--json FILE" in capsys.readouterr().out


def test_json_and_table(capsys, there):
    assert main(["targets", "zen5", "--json", "t.json"]) == 0
    found = json.loads((there / "t.json").read_text())
    assert found["families_by_bits"]["w1a1"] == "popcount" and found["families_by_bits"]["w8a8"] == "dot"
    assert "popcount" in capsys.readouterr().out and os.listdir(there) == ["t.json"]


def test_json_alone_on_stdout(capsys, there):
    assert main(["targets", "zen5"]) == 0
    table = capsys.readouterr().out
    assert main(["targets", "zen5", "--json", "-"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["families_by_bits"]["w1a1"] == "popcount"
    assert printed.err == table and not os.listdir(there)
    assert main(["targets", "zen6", "--json", "-"]) == TARGET and not capsys.readouterr().out
    whole = subprocess.run(
        [sys.executable, "-m", "mpcompile", "targets", "--json", "-"],
        timeout=SOON,
        stdout=open("/dev/full", "w"),  # noqa: SIM115
        stderr=subprocess.PIPE,
        text=True,
    )
    assert whole.returncode == USAGE and whole.stderr.endswith("mpcompile: No space left on device\n")


def test_json_to_a_device_or_a_pipe(there):
    """Written to, never renamed onto: a device stays a device, a pipe a pipe; a redirected stdout keeps its table."""
    os.mkfifo("pipe")
    told = "cannot write {0}: it is a device or a pipe, not a file"
    with pytest.raises(UsageError, match=told.format("pipe")), atomic_path("pipe"):
        pass
    command = (
        f"cat pipe > got & {sys.executable} -m mpcompile targets zen5 --json pipe > table; wait; "
        f"{sys.executable} -m mpcompile targets zen5 --json /dev/stdout > both"
    )
    subprocess.run(["bash", "-c", command], timeout=SOON, check=True)
    assert stat.S_ISFIFO(os.stat("pipe").st_mode)
    assert (there / "both").read_text() == (there / "table").read_text() + (there / "got").read_text()
    done = subprocess.run(
        [sys.executable, "-m", "mpcompile", "targets", "--json", "/dev/full"],
        timeout=SOON,
        capture_output=True,
        text=True,
    )
    assert done.returncode == USAGE and done.stderr == "mpcompile: cannot write /dev/full: No space left on device\n"
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode)


def test_no_output_replaces_another_file_of_the_command(there, capsys):
    (there / "m.onnx").write_text("model")
    os.symlink("m.onnx", "link")
    for line in (
        ["compile", "m.onnx", "-o", "link"],
        ["compile", "m.onnx", "--json", "m.onnx"],
        ["inspect", "m.onnx", "--json", "./m.onnx"],
        ["run", "b.mpc", "--input", "x", "--output", "x"],
        ["compile", "m.onnx", "-o", "b.mpc", "--json", "b.mpc"],
        ["bench", "b.mpc", "--vs-onnx", "m.onnx", "--json", "m.onnx"],
    ):
        code, told = complaint(capsys, *line)
        assert code == USAGE and "it is already the command's " in told
    assert (there / "m.onnx").read_text() == "model"


def test_a_link_stays_a_link(there):
    (there / "real").write_text("before")
    os.symlink("real", "link")
    with atomic_path("link") as temporary:
        temporary.write_text("after")
    assert os.path.islink("link") and (there / "real").read_text() == "after"


def test_a_file_is_on_the_disk_before_it_has_its_name(there, monkeypatch):
    """And its name is, before the block is left: a power failure finds the old file or the new one."""
    done = []

    def fsync(handle):
        done.append(os.path.basename(os.readlink(f"/proc/self/fd/{handle}")))

    def replace(source, target):
        done.append("replace")
        real(source, target)

    real = os.replace
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    with atomic_path("out.json") as temporary:
        temporary.write_text("{}")
    assert done == [temporary.name, "replace", there.name]


def test_a_folder_in_which_one_may_not_look(there):
    (there / "blind").mkdir(mode=0o300)
    with atomic_path("blind/out") as temporary:
        temporary.write_text("there")
    (there / "blind").chmod(0o700)
    assert (there / "blind" / "out").read_text() == "there"


def test_names_do_not_steer_the_terminal(capsys):
    console.complain("node \x1b[31mred\x1b]0;title\x07 (Conv)\nis\x9b2J wrong")
    console.say("tensor \x1b[2J")
    console.table(["name"], [["\x1b[5mlayer\x08"]], title="\x1b[1m")
    out, err = capsys.readouterr()
    assert err == "mpcompile: node \\x1b[31mred\\x1b]0;title\\x07 (Conv) is\\x9b2J wrong\n"
    assert "tensor \\x1b[2J\n" in out and "\\x1b[5mlayer\\x08" in out and "\\x1b[1m" in out and "\x1b" not in out


@pytest.mark.parametrize("number, code", [(signal.SIGINT, INTERRUPTED), (signal.SIGTERM, 143)])
def test_signals_leave_nothing_behind(tmp_path, number, code):
    """A verb that is stopped in the middle of its work; its temporary file goes, and what was there stays."""
    program = (
        "import sys, time\nimport mpcompile.cli.verbs.targets as t\nfrom mpcompile.cli import main\n"
        "from mpcompile.files import atomic_path\n"
        "def work(args):\n"
        "    with atomic_path('out.json') as temporary:\n"
        "        temporary.write_text('half')\n"
        "        print('ready', flush=True)\n"
        f"        {ASLEEP}"
        "t.work = work\nsys.exit(main(['targets']))\n"
    )
    (tmp_path / "out.json").write_text("before")
    child = subprocess.Popen(
        [sys.executable, "-c", program], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stdout.readline() == "ready\n"
    time.sleep(0.1)
    child.send_signal(number)
    _, err = child.communicate(timeout=SOON)
    assert child.returncode == code and "Traceback" not in err
    assert os.listdir(tmp_path) == ["out.json"] and (tmp_path / "out.json").read_text() == "before"


LOST = {
    "a callback of compiled code": "    import tvm_ffi\n    tvm_ffi.convert(ready)()\n",
    "a destructor": "    class Slow:\n        __del__ = lambda self: ready()\n"
    f"    slow = Slow()\n    del slow\n    {ASLEEP}",
}


@pytest.mark.parametrize("where", LOST)
@pytest.mark.parametrize(
    "number, code, says",
    [(signal.SIGINT, INTERRUPTED, "mpcompile: interrupted\n"), (signal.SIGTERM, 143, "")],
)
def test_a_signal_is_not_lost_in(where, number, code, says):
    """There Python's exception becomes another one, or is only printed."""
    program = (
        "import sys, time\nimport mpcompile.cli.verbs.targets as t\nfrom mpcompile.cli import main\n"
        f"def ready():\n    print('ready', flush=True)\n    {ASLEEP}"
        f"def work(args):\n{LOST[where]}"
        "t.work = work\nsys.exit(main(['targets']))\n"
    )
    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "ready\n"
    child.send_signal(number)
    _, err = child.communicate(timeout=SOON)
    assert (child.returncode, err) == (code, says)


@pytest.fixture(params=["", "1"], ids=["buffered", "unbuffered"])
def buffering(request, monkeypatch):
    """Of the commands' stdout: where it is buffered, Python finds out only as it ends."""
    monkeypatch.setenv("PYTHONUNBUFFERED", request.param)


def test_a_reader_that_goes_away(tmp_path, buffering):
    command = f"{sys.executable} -m mpcompile targets; echo $? > code"
    done = subprocess.run(
        ["bash", "-c", f"({command}) | true"],
        cwd=tmp_path,
        timeout=SOON,
        check=True,
        capture_output=True,
        text=True,
    )
    assert (tmp_path / "code").read_text() in ("0\n", "141\n") and done.stderr == ""


def test_a_full_disk(buffering):
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m mpcompile targets > /dev/full"],
        timeout=SOON,
        capture_output=True,
        text=True,
    )
    assert done.returncode == USAGE and done.stderr == "mpcompile: No space left on device\n"


def npz(path, **arrays):
    np.savez(path, **arrays)
    return path


def test_arrays_from_files(there):
    from mpcompile.cli.arrays import read_arrays, write_arrays

    x, y = np.arange(6.0).reshape(2, 3), np.ones(2)
    assert list(read_arrays(npz("a.npz", odd=x), ["x"])) == ["x"]
    assert list(read_arrays(npz("b.npz", x=x, y=y), ["x"])) == ["x"]
    assert list(read_arrays(npz("c.npz", y=y, x=x), ["x", "y"])) == ["x", "y"]
    with pytest.raises(UsageError, match=r"d.npz has no array y; it has x, z"):
        read_arrays(npz("d.npz", x=x, z=y), ["x", "y"])
    with pytest.raises(UsageError, match="no such file"):
        read_arrays("none.npz", ["x"])
    np.save("e.npy", x)
    with pytest.raises(UsageError, match="is a .npy file"):
        read_arrays("e.npy", ["x"])
    (there / "f.npz").write_bytes((there / "c.npz").read_bytes()[:100])
    with pytest.raises(UsageError, match="f.npz is no .npz file"):
        read_arrays("f.npz", ["x"])
    use_foreign_compression(Path(npz("h.npz", x=x)))
    with pytest.raises(UsageError, match="h.npz is no .npz file of plain arrays .*compression method"):
        read_arrays("h.npz", ["x"])
    (there / "text.npz").write_text("hello")
    with pytest.raises(UsageError, match=r"text.npz is no .npz file of plain arrays \(at most pickled objects"):
        read_arrays("text.npz", ["x"])
    write_arrays("g.npz", {"x": x})
    assert np.array_equal(np.load("g.npz")["x"], x)


def test_no_pickle_is_ever_read(there):
    """An object array in a .npz is pickled: refused, and what it would run is not run."""

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(there / "pwned"),)

    from mpcompile.cli.arrays import read_arrays

    np.savez("evil.npz", x=np.array([Evil()], dtype=object))
    with pytest.raises(UsageError, match="plain arrays"):
        read_arrays("evil.npz", ["x"])
    assert not (there / "pwned").exists() and zipfile.is_zipfile("evil.npz")
