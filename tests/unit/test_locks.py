"""One process at a time in a folder or on a file: who is told what, who leaves how, what is left."""

import errno
import fcntl
import os
import subprocess
import sys
from contextlib import contextmanager

import pytest

from mpcompile import locks
from mpcompile.errors import UsageError
from mpcompile.locks import check_free, exclusive_file, exclusive_folder
from tests.patience import SOON

HOLDER = """
import sys
from mpcompile import locks
with getattr(locks, sys.argv[1])(sys.argv[2]):
    print("in", flush=True)
    sys.stdin.read()
"""
KINDS = {"exclusive_file": "file", "exclusive_folder": "folder"}


@contextmanager
def another_process(kind, path):
    """One that is in it; it leaves when its standard input ends, or it is killed."""
    command = [sys.executable, "-c", HOLDER, kind, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "in\n"
            yield process
        finally:
            process.kill()


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def path(kind, tmp_path):
    """Of a file that is not there yet, or a folder that is."""
    found = tmp_path / "it"
    if kind == "exclusive_folder":
        found.mkdir()
    return found


def test_the_second_is_told_which_process_is_there(kind, path):
    with another_process(kind, path) as process:
        for enter in (lambda: getattr(locks, kind)(path).__enter__(), lambda: check_free(path)):
            with pytest.raises(UsageError) as refused:
                enter()
            said = f"another process ({process.pid}) writes to {path}: wait for it, or name another {KINDS[kind]}"
            assert str(refused.value) == said and refused.value.exit_code == 2
        process.communicate(timeout=SOON)
        assert process.returncode == 0
    check_free(path)
    with getattr(locks, kind)(path):
        pass


def test_a_process_that_is_killed_leaves(kind, path):
    with another_process(kind, path) as process:
        process.kill()
        process.wait(SOON)
    with getattr(locks, kind)(path):
        pass


def test_a_process_is_in_its_own_way_too(kind, path):
    with getattr(locks, kind)(path), pytest.raises(UsageError, match=f"^this process writes to {path}"):
        getattr(locks, kind)(path).__enter__()


def test_where_the_system_does_not_tell_no_process_is_named(kind, path, tmp_path, monkeypatch):
    with another_process(kind, path):
        for gone in (tmp_path / "nowhere", tmp_path / "empty"):
            monkeypatch.setattr(locks, "LOCKS", gone)
            with pytest.raises(UsageError, match=f"^another process writes to {path}"):
                getattr(locks, kind)(path).__enter__()
            (tmp_path / "empty").touch()


def test_a_file_system_without_locks_is_named_not_passed_over(kind, path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(UsageError, match=f"cannot lock {path}, .*No locks available; name a {KINDS[kind]} on another"):
        getattr(locks, kind)(path).__enter__()


def test_a_file_that_nothing_was_written_to_goes_again(tmp_path):
    with exclusive_file(tmp_path / "empty"):
        assert (tmp_path / "empty").exists()
    with exclusive_file(tmp_path / "full"):
        (tmp_path / "full").write_text("kept")
    assert [f.name for f in tmp_path.iterdir()] == ["full"]
    check_free(tmp_path / "empty")
    assert [f.name for f in tmp_path.iterdir()] == ["full"]


def test_a_link_stays_one(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "file")
    with exclusive_file(tmp_path / "link"), pytest.raises(UsageError, match="writes to"):
        exclusive_file(tmp_path / "file").__enter__()
    assert (tmp_path / "link").is_symlink() and not (tmp_path / "file").exists()


def test_what_is_locked_is_the_file_of_that_name(tmp_path, monkeypatch):
    """The one who was there may remove it just when another has opened it."""
    flock, removed = fcntl.flock, []

    def after_it_was_removed(handle, how):
        if not removed:
            removed.append(os.unlink(tmp_path / "file"))
        flock(handle, how)

    monkeypatch.setattr(fcntl, "flock", after_it_was_removed)
    with exclusive_file(tmp_path / "file"):
        assert removed and (tmp_path / "file").exists()
        with pytest.raises(UsageError, match="writes to"):
            exclusive_file(tmp_path / "file").__enter__()


def test_what_is_no_file_or_no_folder_is_said(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot use the folder .*file: Not a directory"):
        exclusive_folder(tmp_path / "file").__enter__()
    with pytest.raises(UsageError, match="cannot write .*: Is a directory"):
        exclusive_file(tmp_path).__enter__()
    with pytest.raises(UsageError, match="cannot write .*: No such file"):
        exclusive_file(tmp_path / "nowhere" / "file").__enter__()
    check_free(tmp_path / "nowhere")
