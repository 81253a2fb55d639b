"""What can go wrong, and the exit code that says so. Every message is one line that names the thing."""


class MpError(Exception):
    """A problem that the user can act on; the command line prints its one line and exits with `exit_code`."""

    exit_code = 1


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
    """A device that went away in the middle of its work: another one may do that work again."""


class MissingDependency(MpError):
    """An optional package that is not installed; the message ends with the pip command that installs it."""

    exit_code = 5
