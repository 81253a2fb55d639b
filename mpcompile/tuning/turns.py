"""Work that is prepared here and carried out elsewhere, several pieces taking turns."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future
from threading import Thread
from typing import Any

Work = Generator[Callable[[], Any], Any, None]
"""Yields calls, and is sent what each returned; what it does between is its preparation of the next."""


def in_turn(works: Iterable[Work], at_once: int) -> None:
    """Carries all works out, one call after another. With one at once each in its turn and in this thread; with more, so
    many take turns: the call of one goes on in a thread while another prepares its next."""
    waiting, ready, running = deque(works), deque(), None
    while True:
        while waiting and len(ready) + (running is not None) < at_once:
            ready.append((waiting.popleft(), None))
        call = None
        if ready:
            work, found = ready.popleft()
            try:
                call = work.send(found)
            except StopIteration:
                continue
        if running:
            ready.append((running[0], running[1].result()))
            running = None
        if call:
            running = (work, _started(call, at_once > 1))
        elif not ready:
            return


def _started(call: Callable[[], Any], aside: bool) -> Future:
    future: Future = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    if aside:
        Thread(target=run, name="measuring", daemon=True).start()  # nobody waits for it where this thread is ended
    else:
        future.set_result(call())
    return future
