"""Temporary folders and files: held by those who live, swept where nobody does, and only ours."""

import fcntl
import multiprocessing
import os
import tempfile
import time

import pytest

from mpcompile import temporary
from mpcompile.errors import ResourceError
from mpcompile.files import atomic_path
from mpcompile.temporary import MARK, temporary_file, temporary_folder
from tests.patience import PATIENCE


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(temporary, "_swept", set())
    return tmp_path


def abandoned(folder, name=f"{MARK}abandond"):
    (folder / name).mkdir()
    (folder / name / "kernels0.o").write_text("left")
    return folder / name


def test_a_folder_goes_with_its_block(place):
    with temporary_folder() as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "file").write_text("")
        assert folder.parent == place and os.stat(folder).st_mode & 0o777 == 0o700
    assert not list(place.iterdir())


def test_what_nobody_holds_is_swept_once(place):
    abandoned(place)
    with temporary_folder() as folder:
        assert list(place.iterdir()) == [folder]
        late = abandoned(place)
        with temporary_folder():
            assert late.exists()


def test_what_is_not_ours_stays(place):
    for name in ("mpcompile-abandond", f"{MARK}short", f"{MARK}ABANDOND", f"{MARK}abandond.txt", f"x{MARK}abandond"):
        abandoned(place, name)
    (place / "elsewhere").mkdir()
    os.symlink(place / "elsewhere", place / f"{MARK}linkedto")
    os.mkfifo(place / f"{MARK}a_fifo__")
    before = sorted(place.iterdir())
    with temporary_folder():
        pass
    assert sorted(place.iterdir()) == before


def test_another_users_stays(place, monkeypatch):
    left = abandoned(place)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with temporary_folder():
        assert left.exists()


def test_a_living_processs_stays(place):
    def hold(said):
        with temporary_folder() as folder:
            said.send(str(folder))
            time.sleep(PATIENCE)

    said, says = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=hold, args=(says,))
    process.start()
    folder = said.recv()
    with temporary_folder():
        assert os.path.isdir(folder)
    process.kill()
    process.join()
    temporary._swept.clear()
    with temporary_folder():
        assert not os.path.isdir(folder)


def test_one_that_was_swept_before_it_was_held_is_made_again(place, monkeypatch):
    real, seen = fcntl.flock, []

    def late(handle, what):
        if not seen:
            (folder,) = place.iterdir()
            folder.rmdir()
        seen.append(handle)
        real(handle, what)

    monkeypatch.setattr(fcntl, "flock", late)
    with temporary_folder() as folder:
        assert folder.is_dir() and len(seen) == 2


def test_one_that_was_swept_before_it_was_open_is_made_again(place, monkeypatch):
    made, make = [], tempfile.mkdtemp

    def swept_at_once(**given):
        made.append(make(**given))
        if len(made) == 1:
            os.rmdir(made[0])
        return made[-1]

    monkeypatch.setattr(tempfile, "mkdtemp", swept_at_once)
    with temporary_folder() as folder:
        assert folder.is_dir() and str(folder) == made[1]
    assert len(made) == 2 and os.listdir(place) == []


def test_a_file_system_without_locks(place, monkeypatch):
    def refuse(handle, what):
        raise OSError(95, "Operation not supported")

    left = abandoned(place)
    monkeypatch.setattr(fcntl, "flock", refuse)
    with temporary_folder() as folder:
        assert folder.is_dir() and left.exists()


def test_half_written_files_of_the_same_output_are_swept(place):
    (place / f".m.mpc.{MARK}abandond.mpc").write_text("half")
    (place / f".n.mpc.{MARK}abandond.mpc").write_text("another's")
    (place / ".m.mpc.abandond.mpc").write_text("whose?")
    handle, held = temporary_file(place / "m.mpc")
    assert sorted(p.name for p in place.iterdir()) == sorted(
        [held.name, f".n.mpc.{MARK}abandond.mpc", ".m.mpc.abandond.mpc"]
    )
    temporary._swept.clear()
    with atomic_path(place / "m.mpc") as out:
        out.write_text("whole")
        assert held.exists()
    os.close(handle)
    assert (place / "m.mpc").read_text() == "whole"


@pytest.mark.parametrize("name", ["x" * 250, "é" * 120, "🦊" * 60, "x" * 100 + "." + "y" * 149, "a.", ".hidden"])
def test_long_and_odd_names(name, place):
    with atomic_path(place / name) as out:
        out.write_text("there")
    assert [p.name for p in place.iterdir()] == [name]


def test_no_room_names_the_place(place):
    for error in (OSError(28, "No space left on device"), OSError(28, "No space left on device", f"{place}/{MARK}x")):
        with pytest.raises(OSError if error.filename else ResourceError) as raised, temporary_folder():
            raise error
        assert error.filename or f"into {place}: No space left on device" in str(raised.value)
    with pytest.raises(BrokenPipeError), temporary_folder():
        raise BrokenPipeError
