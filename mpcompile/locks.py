"""One process at a time in a folder, or on a file; whoever comes second is told in one line which process is there.

The system keeps the lock (flock), so a process that dies leaves, however it died. Nothing but the file itself tells of
it, and a lock that is left is no hindrance.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mpcompile.errors import UsageError

LOCKS = Path("/proc/locks")


@contextmanager
def exclusive_folder(folder: str | os.PathLike) -> Iterator[None]:
    """No other process enters this with the same folder meanwhile.

    Raises UsageError where another one is in it, or its file system has no locks.
    """
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise UsageError(f"cannot use the folder {folder}: {error.strerror}") from error
    try:
        _lock(handle, folder, "folder")
        yield
    finally:
        os.close(handle)


@contextmanager
def exclusive_file(path: str | os.PathLike) -> Iterator[None]:
    """The same for a file that several processes may be told to append to. It is made where there is none, and goes
    again where nothing was written to it.

    It is opened for writing, without which NFS locks no file.
    """
    path = os.path.realpath(path)
    handle = _locked(path)
    try:
        yield
    finally:
        if not os.fstat(handle).st_size and _is(handle, path):
            os.unlink(path)  # while it is locked: whoever waits at it looks whether it is still there
        os.close(handle)


def check_free(path: str | os.PathLike) -> None:
    """Raises UsageError where another process is in this folder, or on this file; call it before long work."""
    if os.path.isdir(path):
        with exclusive_folder(path):
            pass
    elif os.path.exists(path):
        with exclusive_file(path):
            pass


def _locked(path: str | os.PathLike) -> int:
    """A descriptor of the file of that name, locked."""
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise UsageError(f"cannot write {path}: {error.strerror}") from error
        try:
            _lock(handle, path, "file")
        except BaseException:
            os.close(handle)
            raise
        if _is(handle, path):
            return handle
        os.close(handle)  # it was removed between opening and locking


def _lock(handle: int, path: str | os.PathLike, kind: str) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = _holder(handle)
        who = "this process" if holder == os.getpid() else f"another process{f' ({holder})' if holder else ''}"
        raise UsageError(f"{who} writes to {path}: wait for it, or name another {kind}") from error
    except OSError as error:
        raise UsageError(
            f"cannot lock {path}, so that no other process writes to it: {error.strerror}; name a {kind} on another "
            "file system"
        ) from error


def _is(handle: int, path: str | os.PathLike) -> bool:
    """Whether the file that is open has this name."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def _holder(handle: int) -> int | None:
    """The process that has locked what is open here; None where the system does not tell: it is another user's, or on
    another machine."""
    mine = os.fstat(handle)
    try:
        fields = [line.split() for line in LOCKS.read_text().splitlines()]
    except OSError:
        return None
    for field in fields:
        if field[1:2] != ["FLOCK"] or not field[5].endswith(f":{mine.st_ino}"):
            continue
        pid = int(field[4])
        if _has_open(pid, mine):  # the numbers of devices are not the same everywhere
            return pid
    return None


def _has_open(pid: int, file: os.stat_result) -> bool:
    try:
        opened = list(Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False
    for each in opened:
        try:
            if os.path.samestat(file, os.stat(each)):
                return True
        except OSError:
            continue
    return False
