"""A real sshd on loopback, with a configuration and keys of its own, behind which the ARM program runs under QEMU."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from getpass import getuser
from pathlib import Path

from tests.patience import PATIENCE, until

TRIES = 5
START = '"$d/runner" '
"""How mpcompile/remote/ssh.py starts the program, in its script."""

CONFIG = """ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
SetEnv TMPDIR={folder}/tmp
ForceCommand {python} -I {folder}/board.py
"""
BOARD = """import os
line = os.environ["SSH_ORIGINAL_COMMAND"]
assert line.count({start!r}) == 1
os.execvp("sh", ["sh", "-c", line.replace({start!r}, {emulator!r} + {start!r})])
"""


@dataclass
class Board:
    """`options`: of ssh, to reach it. `tmp`: what the board's user calls $TMPDIR."""

    host: str
    options: tuple[str, ...]
    tmp: Path
    server: subprocess.Popen

    @property
    def words(self) -> list[str]:
        """bench's options."""
        return ["--ssh", self.host, *(word for o in self.options for word in ("--ssh-option", o))]

    def cut(self) -> None:
        """Breaks every connection, and takes no more."""
        os.killpg(self.server.pid, signal.SIGSTOP)  # so that none is started meanwhile
        for child in reversed(_descendants(self.server.pid)):
            if "sshd" in child[1]:
                os.kill(child[0], signal.SIGKILL)
        os.killpg(self.server.pid, signal.SIGCONT)
        self.server.kill()

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """The emulated program stands still in the block."""
        programs = [pid for pid, name in _descendants(self.server.pid) if name.startswith("qemu-")]
        assert programs
        for pid in programs:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in programs:
                os.kill(pid, signal.SIGCONT)

    def left(self) -> list[str]:
        """What lies in `tmp` when all that ran there should have ended."""
        end = time.monotonic() + PATIENCE
        while (found := sorted(p.name for p in self.tmp.iterdir())) and time.monotonic() < end:
            time.sleep(0.1)
        return found


@contextmanager
def board(folder: Path, emulator: str) -> Iterator[Board]:
    """emulator: the words that the program is started with ("" : the program itself)."""
    (folder / "tmp").mkdir()
    for key in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key], check=True)
    (folder / "board.py").write_text(BOARD.format(start=START, emulator=f"{emulator} " if emulator else ""))
    if os.geteuid() == 0:
        os.makedirs("/run/sshd", exist_ok=True)  # of its separated privileges
    process, port = _start(folder)
    options = (
        f"Port={port}",
        f"IdentityFile={folder}/user",
        "IdentitiesOnly=yes",
        "StrictHostKeyChecking=no",
        "UserKnownHostsFile=/dev/null",
        "BatchMode=yes",
        "LogLevel=ERROR",
    )
    try:
        yield Board(f"{getuser()}@127.0.0.1", options, folder / "tmp", process)
    finally:
        process.kill()
        process.wait()


def _start(folder: Path) -> tuple[subprocess.Popen, int]:
    """sshd, and the port where it takes connections: one that was free, and that no other process took meanwhile."""
    server = shutil.which("sshd", path=os.environ["PATH"] + ":/usr/sbin")
    for _ in range(TRIES):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        (folder / "sshd_config").write_text(CONFIG.format(port=port, folder=folder, python=sys.executable))
        with open(folder / "log", "wb") as log:
            process = subprocess.Popen(
                [server, "-D", "-e", "-f", folder / "sshd_config"], stderr=log, start_new_session=True
            )
        if until(lambda: _listens(port) or process.poll() is not None) and process.poll() is None:
            return process, port
    raise AssertionError((folder / "log").read_text())


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), PATIENCE).close()
        return True
    except OSError:
        return False


def _descendants(pid: int) -> list[tuple[int, str]]:
    """(process, name) of all below `pid`."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                text = (entry / "stat").read_text()
            except OSError:
                continue
            name, rest = text[text.index("(") + 1 : text.rindex(")")], text[text.rindex(")") + 2 :].split()
            parents.setdefault(int(rest[1]), []).append((int(entry.name), name))
    found, at = [], [pid]
    while at:
        children = [child for parent in at for child in parents.get(parent, [])]
        found, at = found + children, [child for child, _ in children]
    return found
