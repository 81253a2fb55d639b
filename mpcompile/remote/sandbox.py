"""This machine as a device whose work is done in a process of its own: a kernel that crashes, hangs or takes all memory
ends that process, and not this one."""

from __future__ import annotations

import secrets
import threading
import time
from typing import Any

import numpy as np

from mpcompile.errors import DeviceLost, TargetError
from mpcompile.latency.measure import Measurement
from mpcompile.remote.connection import RemoteDevice
from mpcompile.runtime.device import About
from mpcompile.runtime.server.limits import Limits
from mpcompile.runtime.server.serve import Server
from mpcompile.runtime.state import State

START_SECONDS = 200.0
CONNECT_SECONDS = 60.0


class SandboxedDevice:
    """As Device. A call that ends the process raises DeviceLost; the next call finds a fresh one. `limit`: seconds that
    one call may take from now on; None: what `limits` say."""

    name = "this machine"

    def __init__(self, limits: Limits | None = None):
        self.about = About.here()
        self.limit: float | None = None
        self._server = Server(key=secrets.token_hex(16), limits=limits, quiet=True)
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._serve, daemon=True, name="mpcompile-sandbox")
        self._thread.start()
        self._session: RemoteDevice | None = None

    def time_kernels(self, *arguments: Any, **named: Any) -> Measurement:
        return self._live().time_kernels(*arguments, **named)

    def race(self, *arguments: Any, **named: Any) -> Measurement:
        return self._live().race(*arguments, **named)

    def profile(self, *arguments: Any, **named: Any) -> Measurement:
        return self._live().profile(*arguments, **named)

    def run(self, *arguments: Any, **named: Any) -> dict[str, np.ndarray]:
        return self._live().run(*arguments, **named)

    def trace(self, *arguments: Any, **named: Any) -> dict[str, dict[str, np.ndarray]]:
        return self._live().trace(*arguments, **named)

    def reference(self) -> float:
        return self._live().reference()

    def state(self) -> State:
        return self._live().state()

    def _serve(self) -> None:
        try:
            self._server.run()
        except BaseException as error:
            self._failure = error

    def _live(self) -> RemoteDevice:
        if self._session is None or self._session.lost:
            self._session = self._connected()
        self._session.limit = self.limit
        return self._session

    def _connected(self) -> RemoteDevice:
        end = time.monotonic() + START_SECONDS
        while True:
            if self._failure:
                raise self._failure
            if not self._thread.is_alive():
                raise DeviceLost(f"{self.name}: the device was closed")
            try:
                return RemoteDevice(self._server.address, self._server.key, self.name, seconds=CONNECT_SECONDS)
            except TargetError:
                if time.monotonic() > end or (not self._thread.is_alive() and not self._failure):
                    raise

    def close(self) -> None:
        """Ends the process. May be called again."""
        if self._session is not None:
            self._session.close()
        self._server.stop()
        self._thread.join()
