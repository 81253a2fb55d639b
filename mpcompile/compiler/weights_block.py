"""The constants of a plan in one block: each at a 64-byte boundary, equal ones once. Nothing of TVM here."""

from __future__ import annotations

import numpy as np

from mpcompile.compiler.offsets import aligned


class WeightsBlock:
    """Grows by constants in the order in which they are added."""

    def __init__(self):
        self._data = bytearray()
        self._offsets: dict[bytes, int] = {}

    def add(self, array: np.ndarray) -> int:
        """The byte offset of the array's data, C order: where equal bytes are already, or else at the end."""
        data = np.ascontiguousarray(array).tobytes()
        if data not in self._offsets:
            self._data += bytes(aligned(len(self._data)) - len(self._data))
            self._offsets[data] = len(self._data)
            self._data += data
        return self._offsets[data]

    def __bytes__(self) -> bytes:
        return bytes(self._data)
