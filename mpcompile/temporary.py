"""Temporary folders and files that their maker holds, so that what a killed process left behind can be told and removed.

Whatever is made here bears MARK in its name and is locked (flock) as long as its maker lives; the system lets go of a
lock when a process ends, however it ends. Whoever makes the next one in the same place first removes what has the mark,
belongs to the same user, and is held by nobody. On a file system without locks nothing is removed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mpcompile.errors import ResourceError

MARK = "mpcompile-work-"
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
"""Errors that are the place's, not those of what is written there."""
_LONGEST, _LONGEST_SUFFIX = 50, 20
"""Characters of a file's name that its temporary file's begins with, and bytes of a suffix that it ends with: a name may
have 255 bytes."""

_swept: set[tuple[int, str, str]] = set()
"""(process, folder, pattern): what one process looked through once."""


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder of its own, in $TMPDIR or where else the system keeps such, gone when the block ends. What killed
    processes of this user left there is removed before.

    Raises ResourceError where it cannot be made, or where the block finds no room in it.
    """
    try:
        place = Path(tempfile.gettempdir())
    except OSError as error:
        raise ResourceError(f"there is no place for temporary files: {error.strerror}") from error
    _sweep(place, f"{re.escape(MARK)}[a-z0-9_]{{8}}")
    try:
        folder, handle = _held(lambda: _opened_folder(place))
    except OSError as error:
        raise ResourceError(f"cannot make a temporary folder in {place}: {error.strerror}") from error
    try:
        yield folder
    except OSError as error:
        if error.errno in NO_ROOM and (error.filename is None or str(error.filename).startswith(str(folder))):
            raise no_room(str(error.strerror), folder) from error
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def no_room(reason: str, folder: Path | None = None) -> ResourceError:
    """What to say where temporary files, in `folder` or somewhere else in their place, find none."""
    place = folder.parent if folder else tempfile.gettempdir()
    return ResourceError(f"cannot write temporary files into {place}: {reason}; TMPDIR may name another place")


def temporary_file(path: Path) -> tuple[int, Path]:
    """An open file beside `path`, hidden, and its name; it stays held until it is closed. What killed processes of
    this user left of writing `path` is removed before. Raises OSError."""
    begin = f".{path.name[:_LONGEST]}.{MARK}"
    suffix = path.suffix if 1 < len(os.fsencode(path.suffix)) <= _LONGEST_SUFFIX else ".tmp"
    _sweep(path.parent, f"{re.escape(begin)}[a-z0-9_]{{8}}{re.escape(suffix)}")

    def opened() -> tuple[Path, int]:
        handle, name = tempfile.mkstemp(prefix=begin, suffix=suffix, dir=path.parent)
        return Path(name), handle

    name, handle = _held(opened)
    return handle, name


def _opened_folder(place: Path) -> tuple[Path, int]:
    """A new folder and a handle on it. A sweep that takes it for abandoned before it is open may have removed it: then
    another one is made."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=MARK, dir=place))
        try:
            return folder, os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue
        except BaseException:
            folder.rmdir()
            raise


def _held(make: Callable[[], tuple[Path, int]]) -> tuple[Path, int]:
    """What was made, locked. Between the two, a sweep may have taken it for abandoned: then another one is made."""
    while True:
        path, handle = make()
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:
            return path, handle  # there are no locks here, and so no sweeps
        if os.path.lexists(path):
            return path, handle
        os.close(handle)


def _sweep(folder: Path, pattern: str) -> None:
    """Removes what bears such a name in `folder` and is held by nobody; once a process."""
    key = (os.getpid(), str(folder), pattern)
    if key in _swept:
        return
    _swept.add(key)
    try:
        names = os.listdir(folder)
    except OSError:  # a folder in which one may not look
        return
    for name in names:
        if re.fullmatch(pattern, name):
            _remove_abandoned(folder / name)


def _remove_abandoned(path: Path) -> None:
    try:
        found = os.lstat(path)
        if found.st_uid != os.geteuid() or not (stat.S_ISDIR(found.st_mode) or stat.S_ISREG(found.st_mode)):
            return
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if stat.S_ISDIR(found.st_mode):
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    except OSError:  # its maker lives, or somebody else was faster
        pass
    finally:
        os.close(handle)
