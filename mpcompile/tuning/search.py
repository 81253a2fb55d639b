"""Which schedule of a layer to measure next: MetaSchedule's evolutionary search with its xgboost cost model.

The design space is a trace of one `sample_categorical` a decision, each noted as an annotation of the layer's `value`
block. So traces replay in a millisecond, mutation changes a decision, and what a candidate's tile is can be read from
its trace; the loops themselves are made once, by the architecture's schedule, when a candidate is built. The cost model
learns from the decisions and what follows from them (Space.features), of all layers of the run together: what it
learned about registers or caches on one layer serves the next.

No tile is proposed twice. Where the evolutionary search runs out of new ones, random ones fill up.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping

import numpy as np
import tvm

from mpcompile.compiler.backend import tvm_dict
from mpcompile.kernels.architecture import Space, Tile
from mpcompile.kernels.build import build
from mpcompile.kernels.tvm_names import Schedule, meta_schedule, tensor
from mpcompile.kernels.tvm_names import Target as TvmTarget
from mpcompile.targets import Target

POPULATION = 48
ITERATIONS = 2
WARM_UP = 12
"""Measured schedules before the cost model is trained; until then, random ones are measured."""
MOST_TRIALS = 1 << 20
"""What the evolutionary search is told; who asks for proposals knows when to stop."""


class CostModel:
    """MetaSchedule's XGBModel over tiles' features, shared by the layers of a run."""

    def __init__(self):
        ms, derived_object = meta_schedule()
        searches: dict[str, TileSearch] = {}

        @derived_object
        class Decisions(ms.feature_extractor.PyFeatureExtractor):
            def extract_from(self, context, candidates):
                search = searches[str(context.task_name)]
                rows = [search.space.features(search.tile_of(c.sch.trace)) for c in candidates]
                return [tensor(np.array([row], np.float32)) for row in rows]

        self.searches = searches
        # one thread: the search shares the machine with the builders
        self.xgb = ms.cost_model.XGBModel(
            extractor=Decisions(),
            num_warmup_samples=WARM_UP,
            verbose_eval=False,
            adaptive_training=False,
            num_tuning_cores=1,
            tree_method="hist",
        )


class TileSearch:
    """Proposals for one layer, `name` in this run."""

    def __init__(self, name: str, space: Space, target: Target, model: CostModel, seed: int = 0):
        self.space, self.model = space, model.xgb
        model.searches[name] = self
        self.rng = random.Random(seed)
        self.names = [n for n, values in space.choices.items() if len(values) > 1]
        self.left = space.tiles()
        self.rng.shuffle(self.left)
        self.seen: set[Tile] = set()
        ms, _ = meta_schedule()
        logging.getLogger(ms.__name__).setLevel(logging.WARNING)
        func, _ = build(space.spec, target.kind)
        self.mod = tvm.IRModule({"main": func})
        self.target = TvmTarget(tvm_dict(target))
        self.args = ms.arg_info.ArgInfo.from_prim_func(func)
        self.database = ms.database.MemoryDatabase()
        self.workload = self.database.commit_workload(self.mod)
        mutator, postproc = _rules(self)
        self.context = ms.TuneContext(
            mod=self.mod,
            target=self.target,
            num_threads=1,
            rand_state=seed + 1,
            task_name=name,
            space_generator=ms.space_generator.ScheduleFn(self.trace, [], [postproc], {mutator: 1.0}),
            search_strategy=ms.search_strategy.EvolutionarySearch(
                population_size=POPULATION, init_min_unmeasured=1, genetic_num_iters=ITERATIONS, eps_greedy=0.15
            ),
        )
        self.started = False

    # -- traces --------------------------------------------------------------------------------------
    def trace(self, sch: Schedule, tile: Tile | None = None) -> None:
        """The space's decisions on `sch`, drawn, or those of `tile`."""
        block = sch.get_sblock("value")
        for name in self.names:
            values = self.space.choices[name]
            decision = None if tile is None else values.index(tile.to_json()[name])
            chosen = sch.sample_categorical(list(range(len(values))), [1 / len(values)] * len(values), decision)
            sch.annotate(block, f"mpcompile.{name}", chosen)

    def tile_of(self, trace) -> Tile:
        """What a trace decided; decisions without alternatives have their one value."""
        drawn = [int(trace.decisions[i]) for i in trace.insts if i.kind.name == "SampleCategorical"]
        fields = {name: values[0] for name, values in self.space.choices.items()}
        fields |= {n: self.space.choices[n][at] for n, at in zip(self.names, drawn, strict=True)}
        return self.space.tile(fields)

    def candidate(self, tile: Tile):
        """The schedule of `tile`'s decisions, as a MeasureCandidate."""
        sch = Schedule(self.mod)
        self.trace(sch, tile)
        return meta_schedule()[0].search_strategy.MeasureCandidate(sch, self.args)

    # -- proposing and learning ----------------------------------------------------------------------
    @property
    def exhausted(self) -> bool:
        """Whether every tile of the space was proposed or told of."""
        return len(self.seen) >= len(self.left)

    def propose(self, count: int) -> list[Tile]:
        """Up to `count` tiles that were neither proposed nor told of before."""
        found: list[Tile] = []
        if len(self.seen) >= WARM_UP and self.names and not self.exhausted:
            found = self._evolved(count)
        for tile in self.left:
            if len(found) >= count:
                break
            if tile not in self.seen:
                self.seen.add(tile)
                found.append(tile)
        return found

    def _evolved(self, count: int) -> list[Tile]:
        if not self.started:
            self.context.pre_tuning(MOST_TRIALS, count, self.context.generate_design_space(), self.database, self.model)
            self.started = True
        candidates = self.context.generate_measure_candidates()
        tiles = [self.tile_of(c.sch.trace) for c in candidates or ()]
        if candidates is not None:
            # all it does with results is to count them; what it learns from is the database, and the cost model
            self.context.notify_runner_results(
                candidates, [meta_schedule()[0].runner.RunnerResult([1.0], None) for _ in candidates]
            )
        new = [t for t in dict.fromkeys(tiles) if t not in self.seen][:count]
        self.seen.update(new)
        return new

    def tell(self, costs: Mapping[Tile, float]) -> None:
        """What was measured: tile → time over the default schedule's, in the same run; inf where it failed."""
        if not costs:
            return
        ms, _ = meta_schedule()
        self.seen.update(costs)
        known = {t: c for t, c in costs.items() if self.space.holds(t)}  # the default may lie outside
        candidates = [self.candidate(t) for t in known]
        results = [
            ms.runner.RunnerResult([c] if np.isfinite(c) else None, None if np.isfinite(c) else "failed")
            for c in known.values()
        ]
        for candidate, result in zip(candidates, results):
            if result.run_secs:
                self.database.commit_tuning_record(
                    ms.database.TuningRecord(
                        candidate.sch.trace, self.workload, result.run_secs, self.target, self.args
                    )
                )
        self.model.update(self.context, candidates, results)


def _rules(search: TileSearch):
    """The mutator and the postprocessor of one search. MetaSchedule copies them as it likes: they hold nothing of their
    own."""
    ms, derived_object = meta_schedule()
    rng = search.rng

    @derived_object
    class ChangeDecision(ms.mutator.PyMutator):
        def _initialize_with_tune_context(self, context):
            pass

        def apply(self, trace, _):
            inst = rng.choice([i for i in trace.insts if i.kind.name == "SampleCategorical"])
            values = range(len(inst.attrs[0]))
            others = [v for v in values if v != int(trace.decisions[inst])]
            return trace.with_decision(inst, rng.choice(others), remove_postproc=True)

        def clone(self):
            return ChangeDecision()

    @derived_object
    class OnlyTiles(ms.postproc.PyPostproc):
        """Drops combinations of decisions that are no tile of the space."""

        def _initialize_with_tune_context(self, context):
            pass

        def apply(self, sch):
            return search.space.holds(search.tile_of(sch.trace))

        def clone(self):
            return OnlyTiles()

    return ChangeDecision(), OnlyTiles()
