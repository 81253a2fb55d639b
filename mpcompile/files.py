"""Output files that appear whole or not at all; what a file from outside must hold."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mpcompile.errors import UsageError
from mpcompile.temporary import temporary_file

if TYPE_CHECKING:
    import numpy as np

Kind = TypeVar("Kind")
_OPEN_FILES = ("/dev/stdout", "/dev/stderr", "/dev/fd/", "/proc/self/fd/")


@contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a temporary path in the same folder; it replaces `path` when the block ends, and vanishes when it fails.

    It is on the disk before it has its name: whenever the power fails, the old file is there or the new one, whole. A link
    stays one: what it points to is replaced. What a process left that was killed while it wrote `path` is removed. Raises
    UsageError where `path` can be no output file.
    """
    check_writable(path)
    path = Path(os.path.realpath(path))
    try:
        handle, temporary = temporary_file(path)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error
    try:
        yield temporary
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask()
        os.chmod(temporary, mode)
        _to_disk(temporary)
        os.replace(temporary, path)
        _to_disk(path.parent)
    except OSError as error:
        if error.filename is None or str(error.filename) == str(temporary):
            raise UsageError(f"cannot write {path}: {error.strerror or error}") from error
        raise
    finally:
        temporary.unlink(missing_ok=True)
        os.close(handle)


def _to_disk(path: Path) -> None:
    """A file's data, or a folder's names, beyond the system's cache, where the file system has such a thing."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except PermissionError:  # a folder in which one may write, but not look
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EROFS):
            raise
    finally:
        os.close(handle)


def check_writable(path: str | os.PathLike) -> None:
    """Raises UsageError where `path` can be no output file; call it before long work."""
    given, path = path, Path(os.path.realpath(path))
    if path.is_dir():
        raise UsageError(f"cannot write {given}: it is a folder")
    if is_stream(given):  # renaming a file to /dev/null would put it in the device's place
        raise UsageError(f"cannot write {given}: it is a device or a pipe, not a file")
    if not path.parent.is_dir():
        raise UsageError(f"cannot write {given}: there is no folder {Path(given).parent}")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise UsageError(f"cannot write {given}: no permission in {path.parent}")


@contextmanager
def output_folder(path: str | os.PathLike, *, parents: bool = True) -> Iterator[Path]:
    """`path` as a folder, made where it is not there, those above it too if `parents`. Where the block fails, those
    that were made and hold nothing are removed again.

    Raises UsageError where it cannot be made.
    """
    path = Path(path)
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        try:
            path.mkdir(parents=parents, exist_ok=True)
        except OSError as error:
            raise UsageError(f"cannot make the folder {path}: {error.strerror}") from error
        yield path
    except BaseException:
        for folder in made:
            try:
                folder.rmdir()
            except OSError:
                pass
        raise


def is_stream(path: str | os.PathLike) -> bool:
    """Whether `path` is a device, a pipe, or one of this process's own open files (/dev/stdout)."""
    given = os.path.abspath(path)
    return given.startswith(_OPEN_FILES) or (
        os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)
    )


def write_stream(path: str | os.PathLike, text: str) -> None:
    """Appends `text` to what `is_stream`. Raises UsageError where that fails."""
    try:
        with open(os.open(path, os.O_WRONLY | os.O_APPEND), "w", encoding="utf-8") as stream:
            stream.write(text)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}") from error


def read_plain_arrays(
    path: str | os.PathLike, what: str, choose: Callable[[list[str]], Iterable[str]] = list
) -> np.ndarray | dict[str, np.ndarray]:
    """The array of a .npy file, or by name those of an .npz that `choose` takes of its names; the others are not read.

    Nothing is unpickled. Raises UsageError, "PATH is no WHAT (why)", where it is damaged or something else.
    """
    import zipfile
    import zlib

    import numpy as np

    try:
        stored = np.load(path, allow_pickle=False)
        if isinstance(stored, np.ndarray):
            return stored
        with stored:
            return {name: stored[name] for name in choose(stored.files)}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        told = " ".join(str(error).split())
        if "pickle" in told:  # numpy takes all that it does not know for pickle, and advises to trust it
            told = "at most pickled objects, which are not read"
        raise UsageError(f"{path} is no {what} ({told})") from error


def validated(data: object, kind: type[Kind], wrong: Callable[[str], Exception], place: str = "") -> Kind:
    """`data`, as a JSON or TOML reader gave it, as a `kind` (a type that msgspec knows).

    Raises wrong(what) where it is none; `what` says where, and what it must be: "records[0].threads must be int, not
    '1'", "records[0].key lacks out". `place`: where in its file `data` is.
    """
    import msgspec

    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        raise wrong(_in_one_line(str(error), data, place)) from error
    except UnicodeEncodeError as error:  # JSON may name half of a character
        raise wrong(f"{place} holds a text that is no Unicode ({error.reason})".lstrip()) from error


_JSON_WORDS = {
    "`object`": "an object",
    "`array`": "a list",
    "`array` of length >= 1": "a list of at least one",
    "`float` > 0.0": "positive",
    "`int` >= 1": "1 or more",
}


def _in_one_line(message: str, data: object, place: str) -> str:
    """msgspec's "Expected `int`, got `str` - at `$.threads`" in our words, with the value itself."""
    what, _, path = message.partition(" - at ")
    inside = path.strip("`").removeprefix("$")
    where = f"{place}{inside}" if place else inside.removeprefix(".")
    if lacks := re.fullmatch(r"Object missing required field `(.*)`", what):
        return f"{where} lacks {lacks[1]}".lstrip()
    if more := re.fullmatch(r"Object contains unknown field `(.*)`", what):
        return f"{where} has {more[1]}, which is unknown".lstrip()
    expected = what.removeprefix("Expected ").split(", got ")[0]
    words = _JSON_WORDS.get(expected, expected.replace("`", ""))
    return f"{where} must be {words}{_found(data, inside)}".lstrip()


def _found(data: Any, where: str) -> str:
    """ ", not VALUE" of what lies there; "" where the path does not tell, as it does not of a mapping's free keys."""
    for step in re.findall(r"[^.\[\]]+", where):
        try:
            data = data[int(step)] if isinstance(data, list) else data[step]
        except (LookupError, TypeError, ValueError):
            return ""
    text = repr(data)
    return f", not {text if len(text) <= 60 else text[:57] + '...'}"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
