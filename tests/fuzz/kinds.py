"""All kinds of inputs, by name."""

from __future__ import annotations

from tests.fuzz.bundles import Bundles, Manifests, Members
from tests.fuzz.compiles import Compiles, Networks
from tests.fuzz.imports import Imports
from tests.fuzz.kind import Kind
from tests.fuzz.reads import Reads
from tests.fuzz.texts import Boards, Fleets, Journals, Records, Searches, Tables

ALL: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Imports(), Compiles(), Networks(), Reads(), Bundles(), Members(), Manifests(), Records(), Boards(), Fleets(),
        Searches(), Tables(), Journals(),
    )
}  # fmt: skip
