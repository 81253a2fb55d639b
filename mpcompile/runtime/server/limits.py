"""What a session may take of the device."""

from __future__ import annotations

from dataclasses import asdict, dataclass


def half_of_memory() -> int:
    """Bytes."""
    import psutil

    return psutil.virtual_memory().total // 2


@dataclass(frozen=True)
class Limits:
    """`seconds` of one call (of the whole session, where the client is not mpcompile), bytes of resident `memory` of
    the session's processes (0: half of the device's), seconds in which a client asks for nothing (`idle`)."""

    seconds: float = 600.0
    memory: int = 0
    idle: float = 3600.0

    def to_json(self) -> dict:
        return asdict(self)
