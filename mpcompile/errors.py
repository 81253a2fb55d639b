"""What can go wrong, and the exit code that says so. Every message is one line that names the thing."""

import errno
import resource


class MpError(Exception):
    """A problem that the user can act on; the command line prints its one line and exits with `exit_code`.

    It is one line whatever is in it: names from a file, which a message tells, may have line breaks.
    """

    exit_code = 1

    def __init__(self, message: object = ""):
        said = str(message)
        super().__init__(" ".join(said.split()) if len(said.splitlines()) > 1 else said)


class UsageError(MpError):
    """A command, option or input array that does not fit (wrong shape, missing file, unknown name)."""

    exit_code = 2


class ResourceError(UsageError):
    """What the machine, or a limit that was set for this process, does not give: memory, or room on a disk."""


class ModelError(MpError):
    """A model, bundle or configuration file that is damaged, or holds what cannot be compiled."""

    exit_code = 3


class TargetError(MpError):
    """A target or device that is unknown, unreachable, or lacks what a bundle needs."""

    exit_code = 4


class DeviceLost(TargetError):
    """A device that went away in the middle of its work: another one may do that work again.

    `cause`: the work itself ended it ("crash", "time", "memory"), someone or the system did by SIGKILL ("killed"), it was
    asked for nothing for long ("idle"), its server was stopped ("server"), or the connection broke ("connection").
    """

    def __init__(self, message: str, cause: str = "connection"):
        super().__init__(message)
        self.cause = cause

    @property
    def by_work(self) -> bool:
        """Whether the work itself is, or may be, to blame: done again, here or on another device, it would likely do it
        again."""
        return self.cause in ("crash", "time", "memory", "killed")


class MissingDependency(MpError):
    """An optional package that is not installed; the message ends with the pip command that installs it."""

    exit_code = 5


_NO_MEMORY = (
    "std::bad_alloc",  # C++
    "bad allocation",  # ONNX Runtime, LLVM
    "Cannot allocate memory",  # the system
    "failed to map segment from shared object",  # its loader
    "cannot allocate memory in static TLS block",
    "Resource temporarily unavailable",  # a thread that C++ does not get
    "can't start new thread",  # nor Python
    "DefaultCPUAllocator: can't allocate memory",  # torch
)


def lack_of_memory(error: BaseException) -> ResourceError | None:
    """What to say where there was too little memory, as Python, the system, or a library says in words of its own; None
    where the error is another one."""
    known = isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if any(words in line for words in _NO_MEMORY)]
    if isinstance(error, MpError) or not (known or telling):
        return None
    reason = (telling or lines or [""])[0]
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    allowed = "" if limit == resource.RLIM_INFINITY else f"; ulimit -v allows {limit >> 20} MiB"
    return ResourceError(f"out of memory{f' ({reason})' if reason else ''}{allowed}")
