"""Ctrl-C and SIGTERM, whatever becomes of the exception that they raise.

Python raises it wherever the main thread happens to be. Inside a callback of TVM's compiler, C++ makes a RuntimeError of
it; inside a destructor, Python prints it and goes on. So the signal is written down as it arrives, and sent again where
it was lost.
"""

from __future__ import annotations

import signal
import sys
import threading
from typing import Any

AGAIN = 0.02
"""Seconds until a signal whose exception was lost is sent again."""


class Interruptions:
    """While it is entered, SIGINT and SIGTERM raise KeyboardInterrupt, and `code` becomes 128 + the signal's number.

    A SIGINT that is ignored (a shell's background jobs) stays ignored; outside the main thread nothing is changed.
    """

    def __init__(self):
        self.code: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interruptions:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._arrived)
        self._hook, sys.unraisablehook = sys.unraisablehook, self._lost
        return self

    def __exit__(self, *_) -> None:
        sys.unraisablehook = self._hook
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _arrived(self, number: int, _) -> None:
        self.code = 128 + number
        raise KeyboardInterrupt

    def _lost(self, unraisable) -> None:
        if self.code is None or not issubclass(unraisable.exc_type, KeyboardInterrupt):
            self._hook(unraisable)
            return
        again = threading.Timer(AGAIN, signal.pthread_kill, (threading.main_thread().ident, self.code - 128))
        again.daemon = True
        again.start()
