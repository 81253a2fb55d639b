"""Connections that come in: attended side by side, so that none holds up another, and no more of them than is bounded."""

from __future__ import annotations

import asyncio
import math
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

MOST_OF_ONE = 128
"""Connections of one address. Through SSH's tunnels all come from 127.0.0.1: devices, and hosts."""
MOST = 512
"""Connections in all: well below the descriptors that a process may usually have, 1024."""
PAUSE = 0.2
"""Seconds until the next try where the system lets nobody in, for lack of descriptors or memory, and nobody is here who
could make room."""
AGAIN_SECONDS = 3600.0
"""The same is said of the same address no sooner."""
MOST_SAID = 1024
"""Of how many addresses and reasons it is remembered that they were named; others are not named then."""


class SentAway(Exception):
    """Why a client is sent away. A reason is a kind, without figures of this client: each is said once."""


@asynccontextmanager
async def within(seconds: float, reason: str) -> AsyncIterator[None]:
    """Sends a client away that takes longer in all, however its bytes come."""
    try:
        async with asyncio.timeout(seconds) as limit:
            yield
    except TimeoutError:
        if limit.expired():
            raise SentAway(reason) from None
        raise


@dataclass(eq=False)
class Guest:
    """A connection, non-blocking, from `address`; time.monotonic() when it was last `heard`. One that `holds` something
    (a device, a place in a queue) goes after those that do not, where there are too many."""

    connection: socket.socket
    address: str
    heard: float = field(default_factory=time.monotonic)
    holds: Callable[[], bool] = lambda: False

    def spoke(self) -> None:
        self.heard = time.monotonic()

    async def receive(self, size: int) -> bytes:
        """Exactly so many bytes. Raises OSError where it goes away before."""
        found = b""
        while len(found) < size:
            piece = await asyncio.get_running_loop().sock_recv(self.connection, size - len(found))
            if not piece:
                raise ConnectionResetError
            found += piece
        return found

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.connection, data)


class Reception:
    """Accepts at `listening`, and awaits `attend(guest)` for each connection, which is closed afterwards.

    `attend` may raise SentAway, and OSError and EOFError, which mean that the client has gone. Where there are too many
    connections the one goes that has been silent for longest, of the same address, or of the one that has most: whoever
    speaks at once is let in, however many others do not. `log(line)` is told who was sent away and why.
    """

    def __init__(
        self, listening: socket.socket, attend: Callable[[Guest], Awaitable[None]], log: Callable[[str], None]
    ):
        self._socket, self._attend, self._log = listening, attend, log
        self._socket.setblocking(False)
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._guests: dict[Guest, asyncio.Task] = {}
        self._said: dict[tuple[str, str], float] = {}

    def run(self) -> None:
        """Until stop(). No connection is open afterwards."""
        try:
            self._loop.run_until_complete(self._run())
        finally:
            self.close()

    def stop(self) -> None:
        """Makes run return; from any thread, or a signal handler."""
        try:
            self._loop.call_soon_threadsafe(self._stopping.set)
        except RuntimeError:  # it has returned
            pass

    def close(self) -> None:
        """What run does at its end; for a reception that was never run."""
        self._loop.close()
        self._socket.close()

    async def _run(self) -> None:
        accepting = asyncio.create_task(self._accept())
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait((accepting, stopping), return_when=asyncio.FIRST_COMPLETED)
        rest = [accepting, stopping, *self._guests.values()]
        for task in rest:
            task.cancel()
        for found in await asyncio.gather(*rest, return_exceptions=True):
            if isinstance(found, Exception):
                raise found

    async def _accept(self) -> None:
        while True:
            try:
                connection, peer = await asyncio.get_running_loop().sock_accept(self._socket)
            except OSError as error:
                task = self._send_away(self._guests, f"the system lets nobody in ({error.strerror})")
                await (asyncio.wait([task]) if task else asyncio.sleep(PAUSE))
                continue
            self._make_room(address := str(peer[0]))
            guest = Guest(connection, address)
            self._guests[guest] = task = asyncio.create_task(self._serve(guest))
            # not in a `finally` of the task: one that is cancelled before its first step never comes there
            task.add_done_callback(lambda _, guest=guest: self._part(guest))
            await asyncio.sleep(0)  # a client that spoke at once is heard before the next comes

    def _make_room(self, address: str) -> None:
        """For one more connection of this address."""
        counts = Counter(guest.address for guest in self._guests)
        if counts[address] >= MOST_OF_ONE:
            reason = f"it has more than {MOST_OF_ONE} connections; the one that was silent for longest is closed"
        elif counts.total() >= MOST:
            address, _ = counts.most_common(1)[0]
            reason = f"there are more than {MOST} connections, and most of them are its"
        else:
            return
        self._send_away([guest for guest in self._guests if guest.address == address], reason)

    def _send_away(self, among: Iterable[Guest], reason: str) -> asyncio.Task | None:
        """The task that has ended when one of them is gone."""
        guest = min(among, key=lambda guest: (guest.holds(), guest.heard), default=None)
        if guest is None:
            return None
        self._complain(guest, reason)
        task = self._guests.pop(guest)
        task.cancel()
        return task

    async def _serve(self, guest: Guest) -> None:
        try:
            await self._attend(guest)
        except SentAway as error:
            self._complain(guest, str(error))
        except (OSError, EOFError):
            pass
        except Exception as error:  # a defect of ours: it costs this client its connection, and nobody else anything
            self._complain(guest, f"internal error: {type(error).__name__}")

    def _part(self, guest: Guest) -> None:
        self._guests.pop(guest, None)
        guest.connection.close()

    def _complain(self, guest: Guest, reason: str) -> None:
        now, what = time.monotonic(), (guest.address, reason)
        if now < self._said.get(what, -math.inf) + AGAIN_SECONDS:
            return
        self._said = {what: at for what, at in self._said.items() if now < at + AGAIN_SECONDS}
        if len(self._said) < MOST_SAID:
            self._said[what] = now
            self._log(f"{guest.address} was sent away: {reason}")
