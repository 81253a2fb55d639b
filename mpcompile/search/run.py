"""A whole search: the latency table; float, int8 and uniform baselines; a point for each budget, with warm starts; and
a race of them all, in which every point's time is taken in turn with the others'.

Every step keeps its result in the run's folder under a key of all it depends on, other steps' files by what they hold;
long ones keep their state as they go: a run that was killed goes on where it was, a finished one is not done again, and
of one whose files were damaged only those are made, where they come out as they were.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch

from mpcompile.errors import UsageError
from mpcompile.files import atomic_path, output_folder
from mpcompile.ir.bits import BitPair
from mpcompile.latency.fingerprint import fingerprint
from mpcompile.latency.progress import PhaseProgress
from mpcompile.latency.table import LatencyTable
from mpcompile.search import checkpoint
from mpcompile.search.budgets import Budget
from mpcompile.search.calibrate import Calibration, calibrate
from mpcompile.search.checks import BUNDLE, MODEL, POINTS, PointChecks
from mpcompile.search.clock import Clock
from mpcompile.search.config import Config, TrainingOptions
from mpcompile.search.device import SearchDevice
from mpcompile.search.folder import Folder, key_of
from mpcompile.search.front import Point, pareto
from mpcompile.search.layers import BitAssignment, Network
from mpcompile.search.loop import Keeper, Recipe, SearchRecipe, silent
from mpcompile.search.methods import METHODS, Query
from mpcompile.search.objective import (
    BitOps,
    BudgetPrice,
    Cost,
    Latency,
    Price,
    WeightPrice,
    bitops,
    land,
    normalised_bits,
)
from mpcompile.search.ownership import CONFIG, CONFIG_HASH, RUN, check_device, check_its_own, holds
from mpcompile.search.record import about_run
from mpcompile.search.sizes import searched_macs, weight_bytes
from mpcompile.search.stamp import sha256_of
from mpcompile.search.still import Still
from mpcompile.search.still import train as train_still
from mpcompile.search.task import ImagesTask, Task

TABLE, FRONT, METRICS = "LUT.json", "front.json", "metrics.json"
NETWORK, SEARCHED, WEIGHTS = "network.onnx", "search.npz", "weights.npz"


@dataclass(frozen=True)
class Result:
    """All points in the order they were made, and those on the Pareto front, fastest first."""

    folder: Path
    points: list[Point]
    front: list[Point]
    calibration: Calibration

    def to_json(self) -> dict:
        return {
            "points": [p.to_json() for p in self.points],
            "front": [p.name for p in self.front],
            "calibration": vars(self.calibration),
        }


class Sweep:
    """One run in its folder. `run()` may be called again after any interruption."""

    def __init__(
        self,
        config: Config,
        out: Path,
        device: SearchDevice,
        show: PhaseProgress = silent,
        *,
        keep_seconds: float = 20.0,
        name: str = "config.toml",
        text: bytes = b"",
        warn: Callable[[str], None] = lambda line: None,
        task: Task | None = None,
    ):
        """`name` and `text`: the configuration file's, for the record; `warn` is told in one line of what was damaged in
        the folder. `task`: what is searched; left out, the images and the residual CNN of the configuration."""
        self.name, self.text, self.warn = name, text, warn
        self.config, self.device, self.keep_seconds = config, device, keep_seconds
        self.task = task or ImagesTask(config)
        self.folder = Folder(out, warn)
        self.clock = Clock(self.folder, keep_seconds)

        def ticking(what: str, done: int, total: int, figures: dict) -> None:
            self.clock.tick()
            show(what, done, total, figures)

        self.show: PhaseProgress = ticking
        self.checks = PointChecks(config, self.folder, self.task, device, self.clock, self.show)
        chosen = config.key("network", "search", "pretrain")
        self.base = key_of(_code(), torch.__version__, self.task.fingerprint, chosen)
        self.points: list[Point] = []

    def run(self) -> Result:
        """Raises MpError's subclasses; what was finished before is kept."""
        c = self.config
        self._record()
        self.table = self._table()
        self._record()
        budgets = self._loosest_first()
        if c.baselines.float or c.baselines.int8:
            self._add(self._baseline("float", None))
        self._pretrained()
        if c.baselines.int8:
            self._add(self.checks.int8(self.network()))
        for bits in c.baselines.uniform:
            self._add(self._baseline(f"uniform-{bits}", bits))
        before: Path | None = None
        for budget in budgets:
            point, before = self._searched(budget, before)
            self._add(point)
        self.points = self.checks.race(self.points)
        return self._written()

    def _record(self) -> None:
        """What was run, on what: for reports."""
        table = getattr(self, "table", None)
        about = about_run(self.name, self.config, self.task, self.network(), self.device, table)
        self.folder.write(RUN, {**about, CONFIG_HASH: hashlib.sha256(self.text).hexdigest()})

    # -- the network -------------------------------------------------------------------------------
    def network(self, start: Path | None = None) -> Network:
        """As the task has it at the beginning, or with the weights of a file."""
        return self.task.network(_kept(start)["network"] if start else None)

    def _recipe(self, given: TrainingOptions) -> Recipe:
        c = self.config
        return Recipe(epochs=given.epochs, batch=c.search.batch, rate=given.rate, shift=c.data.shift)

    # -- the table ---------------------------------------------------------------------------------
    def _table(self) -> LatencyTable:
        """Measured on the network as the search has it, at its narrowest bits but one; from the folder where it was
        before."""
        s = self.config.search
        model = self.folder.path / NETWORK
        network = self.network()
        network.assign(network.uniform(s.bits.weights[1], s.bits.activations[1]))
        key = key_of(
            _code(),
            torch.__version__,
            self.config.key("network"),
            s.weights,
            s.activations,
            dict(self.device.identity),
            *self.task.shape,
        )

        def work() -> dict:
            self.task.export(network, model)
            cache = self.folder.path / f"{TABLE}.cells"
            with self.clock.phase("latency table"):
                table = self.device.table(
                    model, s.bits, cache, lambda done, total: self.show("latency table", done, total, {})
                )
            table.save(self.folder.path / TABLE)
            self.folder.log("latency table", network_ms=1e3 * table.predict())
            return {"file": TABLE}

        self.folder.once("table.json", key, work, files=(TABLE, NETWORK))
        return LatencyTable.load(self.folder.path / TABLE)

    def _calibration(self) -> Calibration:
        """From what was measured so far."""
        known = [(p.raw, p.measured) for p in self.points if p.raw is not None and p.measured is not None]
        return calibrate([raw for raw, _ in known], [measured for _, measured in known])

    # -- points ------------------------------------------------------------------------------------
    def _pretrained(self) -> tuple[dict, Path]:
        """The float network, which all others are trained from: its figures, and the file of its weights."""
        recipe, folder = self._recipe(self.config.pretrain), self.folder.inner(POINTS, "float")
        return self._trained("float", self.network, None, recipe, self.base), folder.path / WEIGHTS

    def _baseline(self, name: str, bits: BitPair | None) -> Point:
        if bits is None:
            return self._finish(name, "float", self.network, None, self._recipe(self.config.pretrain), self.base)
        return self._quantized(name, "uniform", self.network().uniform(*bits))

    def _quantized(self, name: str, kind: str, assignment: BitAssignment, *more) -> Point:
        """Trained from the float network by one recipe, whoever chose the bits: so only they differ."""
        _, start = self._pretrained()
        recipe, key = self._recipe(self.config.retrain), key_of(self.base, sha256_of(start))
        return self._finish(name, kind, lambda: self.network(start), assignment, recipe, key, *more)

    def _searched(self, budget: Budget, before: Path | None) -> tuple[Point, Path]:
        """The point of a budget, and the file of its search's end, from which the next one starts."""
        c, start = self.config, self._pretrained()[1]
        network = self.network(start)
        cost = self._cost(network)
        folder = self.folder.inner(POINTS, budget.name)
        end, price = folder.path / SEARCHED, self._price(budget, cost)
        key = key_of(
            *(self.base, sha256_of(start), c.objective.kind, c.data.shift, vars(price), self._about(cost)),
            sha256_of(before) if before else None,
        )
        keeper = Keeper(folder.path / "search.part.npz", key, self.keep_seconds, self.warn)

        def work() -> dict:
            with self.clock.phase(f"search {budget.name}"):
                method = METHODS[c.search.method].configured(network, c.search)
                found = method.search(self._query(budget, keeper, network, cost, price, before))
                assignment = found.assignment
                if isinstance(price, BudgetPrice) and found.scores is not None:
                    assignment = land(assignment, found.scores, cost, price.target)
            checkpoint.save(end, found.state)
            self.folder.log("searched", point=budget.name, method=c.search.method, **found.figures)
            return {"figures": found.figures, "assignment": assignment.to_json()}

        result = folder.once("searched.json", key, work, files=(SEARCHED,))
        keeper.done()
        assignment = BitAssignment.from_json(result["assignment"])
        return self._quantized(budget.name, "searched", assignment, cost, price, result["figures"]), end

    def _query(
        self, budget: Budget, keeper: Keeper, network: Network, cost: Cost, price: Price, before: Path | None
    ) -> Query:
        c, shift = self.config.search, self.config.data.shift
        warmup = 0 if before else c.warmup
        recipe = SearchRecipe(epochs=c.epochs, batch=c.batch, rate=c.rate, shift=shift, warmup=warmup)
        return Query(
            network, cost, price, self.task.train, recipe, self.config.seed, self.task.loss,
            _kept(before) if before else None, keeper,
            lambda _, done, total, f: self.show(f"search {budget.name}", done, total, f),
        )  # fmt: skip

    def _trained(
        self, name: str, made: Callable[[], Network], assignment: BitAssignment | None, recipe: Recipe, key: str
    ) -> dict:
        """Trains what `made` gives at these bits and exports it, each once: figures and accuracy."""
        folder = self.folder.inner(POINTS, name)
        given = self.config.pretrain if assignment is None else self.config.retrain
        still = Still(given.still, given.most)
        key = key_of(key, assignment.to_json() if assignment else None, vars(recipe), vars(still))
        weights = folder.path / WEIGHTS
        keeper = Keeper(folder.path / "retrain.part.npz", key, self.keep_seconds, self.warn)

        def train() -> dict:
            network = made()
            with self.clock.phase(f"train {name}"):
                found = train_still(
                    network,
                    assignment,
                    self.task.train,
                    recipe,
                    still,
                    seed=self.config.seed,
                    loss=self.task.loss,
                    keeper=keeper,
                    show=lambda _, done, total, f: self.show(f"train {name}", done, total, f),
                )
                network.eval()
                found["accuracy"] = self.task.score(network)
            checkpoint.save(weights, {"key": key, "network": dict(network.state_dict())})
            self.folder.log("trained", point=name, **found)
            return found

        def export_trained() -> dict:
            network = self.network()
            network.assign(assignment)
            network.load_state_dict(_kept(weights)["network"])
            self.task.export(network, folder.path / MODEL)
            return {}

        trained = folder.once("trained.json", key, train, files=(WEIGHTS,))
        keeper.done()
        folder.once("exported.json", key_of(key, sha256_of(weights)), export_trained, files=(MODEL,))
        return trained

    def _finish(
        self,
        name: str,
        kind: str,
        made: Callable[[], Network],
        assignment: BitAssignment | None,
        recipe: Recipe,
        key: str,
        cost: Cost | None = None,
        price: Price | None = None,
        figures: dict | None = None,
    ) -> Point:
        """Trains, exports, compiles and measures; each once."""
        folder, network = self.folder.inner(POINTS, name), self.network()
        model, bundle = folder.path / MODEL, folder.path / BUNDLE
        trained = self._trained(name, made, assignment, recipe, key)
        identity = dict(self.device.identity)

        def compile_model() -> dict:
            with self.clock.phase(f"measure {name}"):
                self.device.compile(model, bundle, self.table)
            return {}

        def measure() -> dict:
            with self.clock.phase(f"measure {name}"):
                seconds = self.device.network_seconds(bundle)
            self.folder.log("measured", point=name, ms=1e3 * seconds)
            return {"seconds": seconds}

        measured = None
        if assignment is not None:
            self.show(f"measure {name}", 0, 1, {})
            key = key_of(sha256_of(model), identity, _about(self.table))
            folder.once("compiled.json", key, compile_model, files=(BUNDLE,))
            measured = folder.once("measured.json", key_of(sha256_of(bundle), identity), measure)["seconds"]
            self.show(f"measure {name}", 1, 1, {"ms": 1e3 * measured})
        checked = self.checks.point(name, folder, bundle if assignment is not None else None)
        point = self._point(name, kind, network, assignment, trained["accuracy"], measured, cost, price)
        point = replace(point, deployed=checked["deployed"], figures={**(figures or {}), **_final(trained)})
        folder.publish(METRICS, point.to_json())
        return point

    def _point(self, name, kind, network, assignment, score, measured, cost, price) -> Point:
        if assignment is None:
            return Point(name, kind, score, None, weight_bytes=weight_bytes(network, {}))
        latency = Latency(network, self.table, self._calibration())
        bits = latency.bits(assignment)
        macs = searched_macs(network)
        return Point(
            name,
            kind,
            score,
            measured,
            latency.of(assignment),
            latency.raw(assignment),
            price.target if isinstance(price, BudgetPrice) else None,
            cost.unit if cost else "s",
            bitops(macs, bits),
            normalised_bits(macs, bits),
            assignment,
            self.table.predict_layers(bits),
            weight_bytes=weight_bytes(network, assignment.weights),
        )

    # -- objective ---------------------------------------------------------------------------------
    def _cost(self, network: Network) -> Cost:
        if self.config.objective.kind == "bitops":
            return BitOps(network)
        return Latency(network, self.table, self._calibration())

    def _about(self, cost: Cost) -> list:
        """What of a cost its result depends on; not where the run's folder lies."""
        if not isinstance(cost, Latency):
            return [cost.unit]
        return [cost.calibration.slope, cost.calibration.offset, _about(cost.table)]

    def _price(self, budget: Budget, cost: Cost) -> Price:
        if budget.kind == "weight":
            return WeightPrice(budget.amount, cost.widest())
        target = self._target(budget, cost)
        if target < cost.least():
            raise UsageError(
                f"{budget.name}: no choice of bits costs {target:.4g} {cost.unit} or less, the fewest bits cost "
                f"{cost.least():.4g}, the most {cost.widest():.4g}"
            )
        return BudgetPrice(target)

    def _target(self, budget: Budget, cost: Cost) -> float:
        """In the cost's unit."""
        if budget.bits is not None:
            return budget.amount * cost.of(self.network().uniform(*budget.bits))
        least, most = cost.least(), cost.widest()
        return least + budget.amount * (most - least) if budget.kind == "share" else budget.amount

    def _loosest_first(self) -> list[Budget]:
        """The budgets in their order. Raises UsageError at one that cannot be met, before anything is trained."""
        cost, budgets = self._cost(self.network()), self.config.budgets()
        for b in budgets:
            self._price(b, cost)
        return sorted(budgets, key=lambda b: b.amount if b.kind == "weight" else -self._target(b, cost))

    # -- results -----------------------------------------------------------------------------------
    def _add(self, point: Point) -> None:
        self.points.append(point)
        self._written()

    def _written(self) -> Result:
        result = self._result()
        self.folder.publish(FRONT, result.to_json())
        return result

    def _result(self) -> Result:
        return Result(self.folder.path, list(self.points), pareto(self.points), self._calibration())


@cache
def _code() -> str:
    """Of what this search runs: what another version of it made is made again."""
    return fingerprint(__name__)


def _kept(path: Path) -> dict:
    """A checkpoint whose step was looked at in this run."""
    state = checkpoint.load(path)
    assert state is not None, f"{path} is as it was written"
    return state


def _final(trained: dict) -> dict[str, float]:
    """Of a training that had any steps."""
    names = {"loss": "final loss", "held out loss": "held out loss", "epochs": "epochs"}
    return {names[k]: v for k, v in trained.items() if k in names}


def _about(table: LatencyTable) -> dict:
    """What it says, wherever its run's folder lies."""
    return {k: v for k, v in table.to_json().items() if k != "model"}


def run(
    config_file: Path,
    config: Config,
    out: Path,
    device: SearchDevice,
    show: PhaseProgress = silent,
    warn: Callable[[str], None] = lambda line: None,
    make_task: Callable[[], Task] | None = None,
) -> Result:
    """The search of a configuration file, in `out`, begun or gone on with; see run_text."""
    where, text = str(config_file), config_file.read_bytes()
    return run_text(config_file.name, text, config, out, device, show, warn, make_task, where)


def run_text(
    name: str,
    text: bytes,
    config: Config,
    out: Path,
    device: SearchDevice,
    show: PhaseProgress = silent,
    warn: Callable[[str], None] = lambda line: None,
    make_task: Callable[[], Task] | None = None,
    where: str = "",
) -> Result:
    """`name` and `text` of a configuration, and `where` it lies, for messages; `warn` is told of what is damaged in `out`;
    `make_task`: what is searched, see Sweep.

    Raises UsageError where `out` holds another configuration's run, or one that was measured on another kind of device,
    or another process is at work in it.
    """
    copy = out / CONFIG
    with output_folder(out):
        folder = Folder(out, warn)
        if not holds(copy, text):  # before anything is tidied up in it
            check_its_own(folder, where or name, text)
        with folder.locked():
            check_device(folder, device)
            task = make_task() if make_task else None
            sweep = Sweep(config, out, device, show, name=name, text=text, warn=warn, task=task)
            if not holds(copy, text):  # the folder belongs to a configuration once its data could be read
                with atomic_path(copy) as temporary:
                    temporary.write_bytes(text)
            return sweep.run()
