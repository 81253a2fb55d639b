"""Text that users keep or write: records, boards, fleets, searches' TOMLs, latency tables, journals. Each is refused in one
line that names the file, or is used as any other; damaged lines of a journal are as if they had never been."""

from __future__ import annotations

import json
import random
import tempfile
import tomllib
from abc import abstractmethod
from functools import cache
from pathlib import Path
from typing import Any

from mpcompile.errors import MpError
from tests.fuzz.kind import Aside, Kind, Number, refused
from tests.fuzz.structured import edited, spoiled, toml

ROOT = Path(__file__).resolve().parents[2]
FAMILY = "x86-64-v3"


class Texts(Kind):
    """A kind of text file: `seed`, what one holds; `use`, what is done with it."""

    spoils = 0.15
    named = True
    """Whether every refusal names the file."""
    share = 0.01
    file: str

    @abstractmethod
    def seed(self) -> dict: ...

    def text(self, found: dict) -> bytes:
        return (json.dumps(found) if self.suffix == ".json" else toml(found)).encode(errors="replace")

    def make(self, number: Number, without: frozenset[int] = frozenset()) -> bytes:
        rng = self.rng(number)
        if rng.random() < self.spoils:
            return spoiled(self.text(self.seed()), rng)
        return self.text(edited(self.seed(), rng)[0])

    def judge(self, content: bytes, folder: Path, aside: Aside) -> str:
        path = folder / self.file
        path.write_bytes(content)
        try:
            self.use(path)
        except MpError as error:
            return refused(error, path.stem if self.named else "")
        return "works"

    @abstractmethod
    def use(self, path: Path) -> Any: ...


@cache
def _records() -> dict:
    """The first few that ship."""
    found = json.loads((ROOT / "schedules" / "records" / f"{FAMILY}.json").read_bytes())
    return found | {"records": found["records"][:3]}


@cache
def _network():
    """A few convolutions and dense layers."""
    import onnx

    from mpcompile.frontend import load
    from tests.fuzz.random_networks import Qonnx

    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        network = Qonnx(random.Random(3))
        for _ in range(3):
            network.contract()
        onnx.save(network.finished(), Path(folder) / "m.onnx")
        return load(Path(folder) / "m.onnx")


@cache
def _own_records() -> dict:
    """Records of the layers of _network: those that ship may be near none."""
    from mpcompile.compiler import pipeline
    from mpcompile.records.key import layer_key
    from mpcompile.targets import load_target

    keys = []

    def seen(spec, architecture):
        keys.append((layer_key(spec), architecture.default_tile(spec).to_json()))
        return architecture.default_tile(spec), {"from": "default"}

    pipeline.plan(_network(), load_target(FAMILY), pipeline.Options(tuned=seen))
    like = _records()["records"][0]
    return _records() | {
        "records": [like | {"key": k, "tile": t, "default_tile": t} for k, t in keys] + _records()["records"][:1]
    }


class Records(Texts):
    """Of `mpcompile tune`, read and used by a compile that stops before there is machine code."""

    name, suffix, file, count = "records", ".json", f"{FAMILY}.json", 4_000
    share = 0.06

    def seed(self) -> dict:
        return _own_records()

    def use(self, path: Path) -> None:
        from mpcompile.compiler import pipeline
        from mpcompile.records.choose import TunedTiles
        from mpcompile.records.store import records_for
        from mpcompile.targets import load_target

        board = load_target(FAMILY)
        records = records_for(board, path.parent)
        assert len(records.fingerprint) == 16
        pipeline.plan(_network(), board, pipeline.Options(tuned=TunedTiles(records)))


class Boards(Texts):
    name, suffix, file, count = "boards", ".toml", "board.toml", 600

    def seed(self) -> dict:
        return tomllib.loads((ROOT / "targets" / "zen4.toml").read_text())

    def use(self, path: Path) -> None:
        from mpcompile.targets import load_fleet

        json.dumps(load_fleet(path).to_json())


class Fleets(Boards):
    name, file, count = "fleets", "fleet.toml", 300

    def seed(self) -> dict:
        return {"description": "some", "boards": ["x86-64-v4", "x86-64-v3", "x86-64-v2"]}


class Searches(Texts):
    """The TOML of a search."""

    name, suffix, file, count = "searches", ".toml", "search.toml", 800

    def seed(self) -> dict:
        found = tomllib.loads((ROOT / "examples" / "demo" / "search.toml").read_text())
        more = {"baselines": {"uniform": ["w1a1", "w8a8"], "float": True, "int8": False}}
        return {"seed": 3} | more | found

    def use(self, path: Path) -> None:
        from mpcompile.search import config

        found = config.read(path)
        found.budgets(), found.to_json(), found.key("search")


@cache
def _table() -> tuple[dict, str]:
    """A latency table of simulated times, and the journal that measuring it left."""
    from mpcompile.frontend import load
    from mpcompile.ir.bits import BitCandidates
    from mpcompile.latency.cache import Cache
    from mpcompile.latency.profile import build_table
    from tests.latency.networks import branching
    from tests.latency.simulated import Simulated

    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        folder = Path(name)
        model = load(branching(folder / "m.onnx"))
        table = build_table(model, BitCandidates.of([1, 2], [2, 4]), Simulated(), Cache(folder / "cells"))
        return table.to_json() | {"model": "m.onnx"}, (folder / "cells").read_text()


class Tables(Texts):
    """Latency tables, asked all that a search asks."""

    name, suffix, file, count = "tables", ".json", "LUT.json", 1_500
    named = False  # what a table lacks is told when it is asked, by whoever loaded it

    def seed(self) -> dict:
        return _table()[0]

    def use(self, path: Path) -> None:
        from mpcompile.latency.table import LatencyTable

        table = LatencyTable.load(path)
        table.predict()
        for name in table.contractions:
            table.matrix(name)
        for name, (a, _) in table.quantizers.items():
            table.pack(name, a)
        table.formats()
        assert LatencyTable.from_json(json.loads(json.dumps(table.to_json()))) == table


class Journals(Texts):
    """Cells of a latency table, a line each: damaged ones are as if they had never been."""

    name, suffix, file, count = "journals", ".jsonl", "cells.jsonl", 1_500

    def seed(self) -> dict:
        return {"lines": [json.loads(line) for line in _table()[1].splitlines()]}

    def text(self, found: dict) -> bytes:
        lines = found.get("lines")
        lines = lines if isinstance(lines, list) else [lines]
        return "".join(json.dumps(line) + "\n" for line in lines).encode()

    def use(self, path: Path) -> None:
        from mpcompile.latency.cache import Cache

        before = path.read_bytes()
        cache = Cache(path)
        lines = list(cache)
        for line in lines:
            assert 0 < line.low <= line.seconds <= line.high < 1000 and line.reference > 0
            assert cache.get(line.key) is not None and cache.of_kernel(line.kernel) is not None
        cache.put(lines[:1])
        assert path.read_bytes().startswith(before)
        assert len(Cache(path)) == len(lines)
