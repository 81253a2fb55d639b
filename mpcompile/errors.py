"""What can go wrong, and the exit code that says so. Every message is one line that names the thing."""


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
