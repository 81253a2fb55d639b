"""TVM's tracker in this process: it lends devices by key, to whoever asked first."""

from __future__ import annotations

import asyncio
import logging
import secrets

from mpcompile.runtime.server.door import keep_alive, listen


class Lender:
    """Listens on `host`:`port`. Raises UsageError where it cannot."""

    def __init__(self, host: str, port: int):
        self._socket = listen(host, port)
        keep_alive(self._socket)  # connections inherit it: a device whose power fails is forgotten
        self.address: tuple[str, int] = self._socket.getsockname()[:2]
        self._loop = asyncio.new_event_loop()

    def run(self) -> None:
        """Until stop()."""
        from tvm.rpc.tracker import TrackerServerHandler, logger

        logger.setLevel(logging.ERROR)
        asyncio.set_event_loop(self._loop)
        handler = TrackerServerHandler(self._socket, secrets.token_hex(16))
        try:
            handler.run()
        finally:
            for connection in list(handler._connections):
                connection.close()
            self._socket.close()

    def stop(self) -> None:
        """Makes run return; from a signal handler."""
        self._loop.call_soon_threadsafe(self._loop.stop)
