"""Which tile a layer gets when it is compiled: its record's, the nearest shape's, or the default."""

from __future__ import annotations

from mpcompile.kernels.architecture import Architecture, Tile
from mpcompile.kernels.spec import LayerSpec
from mpcompile.records.key import layer_key, title
from mpcompile.records.store import Records

THREADS = 2
"""Records made with any number of threads are accepted: a space for several holds those for one."""


class TunedTiles:
    """`records` as a chooser of tiles (kernels.layer.lower)."""

    def __init__(self, records: Records):
        self.records = records

    def __call__(self, spec: LayerSpec, architecture: Architecture) -> tuple[Tile, dict]:
        """(tile, where it is from: {"from": "default" | "record" | "transferred", …})."""
        default = architecture.default_tile(spec)
        found = self.records.find(layer_key(spec), lambda tile: _fits(tile, spec, architecture))
        if found is None:
            return default, {"from": "default"}
        record = found.record
        if not record.tuned:
            return default, {"from": "record", "gain": 1.0, "cpu": record.cpu}
        source = {"from": "transferred", "of": title(record.key)} if found.transferred else {"from": "record"}
        return architecture.tile_from_json(record.tile), source | {"gain": round(record.gain, 3), "cpu": record.cpu}


def _fits(tile: dict, spec: LayerSpec, architecture: Architecture) -> bool:
    try:
        return architecture.space(spec, THREADS).holds(architecture.tile_from_json(tile))
    except (TypeError, ValueError):
        return False  # of another version of the architecture's tiles
