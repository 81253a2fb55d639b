"""The TOML file of a search: its keys with their bounds and meaning, read. Every error names the file and the key. No torch
here.

    seed = 0                     # of weights, of the order of images and of every draw
    module = ""                  # what to search instead of [data] and the residual CNN, like "nets:task": a file beside
                                 # this one, or a module, and a function of it, which returns the nn.Module, the data to
                                 # train with and those to compare by, or a dict that names these

    [data]                       # all of it may be left out: scikit-learn's digits in clutter, 32×32
    path = "fashion"             # a folder or .npz file, relative to this file (data.py says which); left out: the digits
    side = 32                    # images become so many pixels high and wide
    train = 1600                 # only the first so many images to train on; 0: all
    test = 1000                  # only the first so many images to test with; 0: all
    shift = 2                    # pixels that images are moved by at most, at random, in training

    [network]                    # a residual CNN; ResNet-20 is 16, 32, 64 and 3, 3, 3
    widths = [64, 128, 256]      # channels of each stage
    blocks = [1, 2, 1]           # residual blocks of each stage
    stem_stride = 1              # of the first convolution: 1 or 2
    weight = "edmips"            # quantizer of weights: "edmips" or "dorefa"
    activation = "pact"          # quantizer of activations: "pact" or "lsq"

    [search]
    method = "ilp"               # how bits are searched: "ilp", "ebs", "edmips", "bsq", "supernet", "greedy", "halving",
                                 # "random" or "uniform"
    weights = [1, 2, 3, 4, 8]    # candidate bits of weights
    activations = [1, 2, 3, 4, 8] # candidate bits of activations
    epochs = 10                  # of the search
    warmup = 2                   # epochs before the strengths move, for the first budget only
    batch = 64                   # images of a step, in every phase
    rate = 2e-3                  # learning rate of the weights

    [search.ebs]                 # options of a method, read where it is the one
    gumbel = false               # whether noise is added to the strengths: the stochastic variant
    strength_rate = 0.03         # learning rate of the strengths
    hot = 1.0                    # temperature of the strengths' softmax at the beginning
    cold = 0.2                   # temperature of the strengths' softmax at the end
    settle = 0.5                 # the part of the search after which choices are settled, one after another
    [search.edmips]
    strength_rate = 0.01         # learning rate of the strengths, a tenth of it after 40 and 80 % of the search
    momentum = 0.9               # momentum of the strengths
    decay = 1e-4                 # weight decay of the strengths
    start = 0.01                 # what all strengths are at first
    settle = 0.5                 # the part of the search after which choices are settled, one after another
    [search.ilp]
    sensitivity = "loss"         # what a choice loses: measured, or modelled by "hessian" or "fisher"
    samples = 512                # images that a choice of bits is judged by
    renorm = true                # whether BatchNorm takes the statistics of the judged images
    probes = 8                   # random vectors that the Hessian's trace is estimated by
    [search.bsq]
    activations = 4              # bits of activations, which BSQ does not search
    prune = 8                    # how often, in the search, codes are made anew and empty planes dropped
    rate = 0.02                  # learning rate of the planes
    strength = 0.01              # of the group lasso, at first; doubled while the cost is above the target
    [search.supernet]
    population = 32              # assignments of a generation
    generations = 10             # of the evolution
    parents = 8                  # the best assignments so far that the next are made of
    mutation = 0.15              # probability that a choice is drawn anew
    samples = 512                # images that a choice of bits is judged by
    [search.greedy]
    samples = 512                # images that a choice of bits is judged by
    renorm = true                # as in search.ilp
    [search.halving]
    sources = ["ilp", "greedy", "uniform"] # methods whose bits are candidates
    candidates = 8               # in all: as many as are lacking are mutants of those
    mutation = 0.2               # probability that a mutant's choice is drawn anew
    held_out = 0.25              # share of the images that candidates are judged by
    epochs = 1                   # of a candidate's first training, the next has twice as many
    [search.random]
    draws = 1                    # of so many, the one that loses least without training is taken
    samples = 512                # images that a choice of bits is judged by

    [objective]
    kind = "latency"             # what bits cost: "latency" or "bitops"
    targets = ["w2a2", "60 %", "2.5 ms"] # budgets, each a point of the front: what a uniform network costs, or so far
                                 # on the way from the fewest bits' cost (0 %) to the most bits' (100 %), or absolute
                                 # (ms, us, s, MBitOps, GBitOps)
    weights = []                 # instead of targets: what the widest bits' cost adds to the loss

    [pretrain]                   # in float; every other network is trained from this one
    epochs = 10                  # of training in float
    rate = 2e-3                  # learning rate in float
    still = 0                    # above 0: train again, each time twice as long, until the loss on held-out images falls by
                                 # less than this share of it
    most = 4                     # trainings at the utmost, where still is above 0

    [retrain]                    # at its bits, searched or uniform
    epochs = 10                  # of training at the bits
    rate = 1e-3                  # learning rate at the bits
    still = 0.02                 # as in pretrain
    most = 4                     # as in pretrain

    [baselines]                  # networks beside the searched ones
    uniform = ["w1a1", "w2a2", "w4a4", "w8a8"] # networks whose searched layers all have these bits
    float = true                 # whether the float network is timed, too, in ONNX Runtime
    int8 = true                  # the float network (then trained too) quantized by ONNX Runtime, timed in it

    [measure]
    target = "native"            # the board that is compiled for
    threads = 1                  # of every run; 0: all physical cores
    rounds = 21                  # good samples of each subject
    tracker = "host:9190"        # the tracker that lends devices; left out: measured on this machine. The options
                                 # --tracker and --key of the command line replace these two
    key = "rpi4b"                # the devices of that tracker, measured on side by side

Only the objective must be given.
"""

from __future__ import annotations

import hashlib
import json
import os
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from msgspec import Meta, Struct, field, structs

from mpcompile.errors import ModelError, UsageError
from mpcompile.ir.bits import BitCandidates, BitPair
from mpcompile.search.budgets import Budget, parse_budget
from mpcompile.search.method_options import (
    BSQOptions,
    EBSOptions,
    EdMIPSOptions,
    GreedyOptions,
    HalvingOptions,
    ILPOptions,
    RandomOptions,
    SupernetOptions,
)
from mpcompile.search.schema import FINITE, plain, typed

WeightQuantizer = Literal["edmips", "dorefa"]
ActivationQuantizer = Literal["pact", "lsq"]
QUANTIZERS = {"weight": get_args(WeightQuantizer), "activation": get_args(ActivationQuantizer)}
"""Names of quantizers.py, for a check that needs no torch."""

MethodName = Literal["ebs", "edmips", "ilp", "bsq", "supernet", "greedy", "halving", "random", "uniform"]
METHOD_NAMES = get_args(MethodName)
"""Names of methods.METHODS."""
WEIGHING = "ebs", "edmips"
"""Those that take a weight of the cost in place of a budget."""

Bits = Annotated[int, Meta(ge=1, le=8)]
Count = Annotated[int, Meta(ge=1)]
Positive = Annotated[float, Meta(gt=0, le=FINITE)]
FromZero = Annotated[float, Meta(ge=0, le=FINITE)]


MODULE = (
    'what to search instead of the data and the residual CNN, like "nets:task": a file beside this one, or a module, and '
    "a function of it, which returns the nn.Module, the data to train with and those to compare by, or a dict of these"
)


def _said(description: str) -> Meta:
    return Meta(description=description)


class DataOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """The images to train and to test with."""

    path: Annotated[
        str, _said("a folder or .npz file of images, relative to this file; left out: scikit-learn's digits")
    ] = ""
    side: Annotated[int, Meta(ge=8), _said("height and width in pixels that every image is brought to")] = 32
    train: Annotated[int, Meta(ge=0), _said("only the first so many images to train with; 0: all")] = 0
    test: Annotated[int, Meta(ge=0), _said("only the first so many images to test with; 0: all")] = 0
    shift: Annotated[int, Meta(ge=0), _said("pixels that images are moved by, at random, in training")] = 2


class NetworkOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """The residual CNN that is searched; ResNet-20 has widths 16, 32, 64 and blocks 3, 3, 3."""

    widths: Annotated[list[Count], Meta(min_length=1), _said("channels of each stage")] = field(
        default_factory=lambda: [64, 128, 256]
    )
    blocks: Annotated[list[Count], Meta(min_length=1), _said("residual blocks of each stage, as many as widths")] = (
        field(default_factory=lambda: [1, 2, 1])
    )
    stem_stride: Annotated[Literal[1, 2], _said("2 halves the map before the first stage")] = 1
    weight: Annotated[WeightQuantizer, _said("the quantizer of weights")] = "edmips"
    activation: Annotated[ActivationQuantizer, _said("the quantizer of activations")] = "pact"


class SearchOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """How the bits are searched."""

    method: Annotated[MethodName, _said("the search method")] = "ilp"
    weights: Annotated[list[Bits], Meta(min_length=2), _said("candidate bits of weights, all different")] = field(
        default_factory=lambda: [1, 2, 3, 4, 8]
    )
    activations: Annotated[list[Bits], Meta(min_length=2), _said("candidate bits of activations, all different")] = (
        field(default_factory=lambda: [1, 2, 3, 4, 8])
    )
    epochs: Annotated[Positive, _said("epochs of each budget's search")] = 10.0
    warmup: Annotated[FromZero, _said("epochs before strengths move, for the first budget only")] = 2.0
    batch: Annotated[int, Meta(ge=2), _said("images of one step, in training too")] = 64
    rate: Annotated[Positive, _said("learning rate of the weights")] = 2e-3
    ebs: EBSOptions = EBSOptions()
    edmips: EdMIPSOptions = EdMIPSOptions()
    ilp: ILPOptions = ILPOptions()
    bsq: BSQOptions = BSQOptions()
    supernet: SupernetOptions = SupernetOptions()
    greedy: GreedyOptions = GreedyOptions()
    halving: HalvingOptions = HalvingOptions()
    random: RandomOptions = RandomOptions()

    @property
    def bits(self) -> BitCandidates:
        """The candidates, ascending."""
        return BitCandidates.of(self.weights, self.activations)


class ObjectiveOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """What bits cost, and the points of the front: targets or weights, one of them."""

    kind: Annotated[Literal["latency", "bitops"], _said("what bits cost: seconds, or MACs times both bits")] = "latency"
    targets: Annotated[
        list[str],
        _said(
            "budgets, each a point of the front: what a uniform network costs, or so far on the way from the fewest bits' "
            "cost (0 %) to the most bits' (100 %), or absolute (ms, us, s, MBitOps, GBitOps)"
        ),
    ] = field(default_factory=list)
    weights: Annotated[list[FromZero], _said("instead of targets: what the widest bits' cost adds to the loss")] = (
        field(default_factory=list)
    )


class TrainingOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """Training at the chosen bits, searched or uniform."""

    epochs: Annotated[Positive, _said("epochs of the training")] = 10.0
    rate: Annotated[Positive, _said("learning rate at the beginning")] = 1e-3
    still: Annotated[
        float,
        Meta(ge=0, lt=1),
        _said(
            "train again, each time twice as long, until the loss on held-out images falls by less than this share of it; "
            "0: once, on all images"
        ),
    ] = 0.0
    most: Annotated[Count, _said("trainings at the utmost, where still is above 0")] = 4


class PretrainOptions(TrainingOptions, frozen=True, forbid_unknown_fields=True):
    """Training in float; every other network is trained from this one."""

    epochs: Annotated[FromZero, _said("epochs of the training; 0: a module as it comes")] = 10.0
    rate: Annotated[Positive, _said("learning rate at the beginning")] = 2e-3


class BaselineOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """Points beside the searched ones, to compare them with."""

    uniform: Annotated[list[BitPair], _said("networks with the same bits everywhere")] = field(default_factory=list)
    float: Annotated[bool, _said("the network without quantization, timed in ONNX Runtime")] = False
    int8: Annotated[bool, _said("the float network quantized by ONNX Runtime, timed in it")] = False


class MeasureOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """The device and how it measures; the command line's options replace tracker and key."""

    target: Annotated[str, _said("the board that is compiled for: a name, or a TOML's path")] = "native"
    threads: Annotated[int, Meta(ge=0), _said("threads of each measurement; 0: all physical cores")] = 0
    rounds: Annotated[Count, _said("good samples of each number")] = 21
    tracker: Annotated[str, _said("HOST:PORT of the tracker that lends the devices; left out: this machine")] = ""
    key: Annotated[str, _said("the key of the devices there, all of which measure side by side")] = ""


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    """A search. `data.path` is absolute, or "" for the digits; `train`, `test` and `threads` are 0 where left out."""

    seed: Annotated[int, Meta(ge=0), _said("all chance is drawn from it")] = 0
    module: Annotated[str, _said(MODULE)] = ""
    data: DataOptions = DataOptions()
    network: NetworkOptions = NetworkOptions()
    search: SearchOptions = SearchOptions()
    objective: ObjectiveOptions = ObjectiveOptions()
    pretrain: PretrainOptions = PretrainOptions()
    retrain: TrainingOptions = TrainingOptions()
    baselines: BaselineOptions = BaselineOptions()
    measure: MeasureOptions = MeasureOptions()

    def budgets(self) -> list[Budget]:
        """The points of the front, in the file's order. Raises ModelError at a target that cannot be read."""
        if self.objective.weights:
            return [Budget(f"weight-{w:g}", "weight", w) for w in self.objective.weights]
        return [parse_budget(text, self.objective.kind) for text in self.objective.targets]

    def to_json(self) -> dict[str, Any]:
        """Every key, as the file has it."""
        return plain(self)

    def key(self, *sections: str) -> str:
        """sha256 of these sections and the seed: what a result depends on; not which tracker devices were got from."""
        chosen = {name: plain(getattr(self, name)) for name in sections}
        for part in ("tracker", "key"):
            chosen.get("measure", {}).pop(part, None)
        for other in METHOD_NAMES:
            if other != self.search.method:
                chosen.get("search", {}).pop(other, None)
        return hashlib.sha256(json.dumps([self.seed, chosen], sort_keys=True).encode()).hexdigest()


def read(path: str | os.PathLike) -> Config:
    """Raises UsageError where there is no such file, ModelError naming file and key at what is wrong in it."""
    path = Path(path)
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # of numbers with thousands of digits, and lists in lists, too
        raise ModelError(f"{path} is no TOML file: {error}") from error
    config = of(given, str(path))
    if config.data.path:
        data = structs.replace(config.data, path=str((path.parent / config.data.path).resolve()))
        config = structs.replace(config, data=data)
    return config


def of(given: dict[str, Any], where: str) -> Config:
    """The configuration that such tables say. Raises ModelError, with `where` in front, as `read` does."""
    config = typed(Config, given, where)
    _check(config, where)
    return config


def as_toml(config: Config) -> str:
    """Every key, as a file has it."""
    lines: list[str] = []
    tables = []
    for name, value in config.to_json().items():
        if isinstance(value, dict):
            tables += _table(name, value)
        else:
            lines.append(f"{name} = {json.dumps(value)}")
    return "\n".join([*lines, *tables, ""])


def _table(name: str, values: dict[str, Any]) -> list[str]:
    """A table, then those in it."""
    keys = [f"{key} = {json.dumps(v)}" for key, v in values.items() if not isinstance(v, dict)]
    inner = [line for key, v in values.items() if isinstance(v, dict) for line in _table(f"{name}.{key}", v)]
    return [*(["", f"[{name}]", *keys] if keys else []), *inner]


def _check(config: Config, path: str) -> None:
    """What depends on more than one value. Raises ModelError."""
    search, network, objective = config.search, config.network, config.objective

    def need(right: bool, key: str, wanted: str, value: Any) -> None:
        if not right:
            raise ModelError(f"{path}: {key} must be {wanted}, not {value!r}")

    def need_different(key: str, values: Sequence) -> None:
        texts = [str(v) for v in values]
        need(len(set(texts)) == len(texts), key, "without repetition", texts)

    need(not (config.module and config.data.path), "data.path", "left out beside module", config.data.path)
    need_different("search.weights", search.weights)
    need_different("search.activations", search.activations)
    need(len(network.blocks) == len(network.widths), "network.blocks", "as many numbers as widths", network.blocks)
    need(
        bool(objective.targets) != bool(objective.weights),
        "objective",
        "given either targets or weights",
        {"targets": objective.targets, "weights": objective.weights},
    )
    weighed = search.method in WEIGHING or not objective.weights
    need(weighed, "search.method", f"one of {', '.join(WEIGHING)} beside objective.weights", search.method)
    try:
        budgets = config.budgets()
    except ModelError as error:
        raise ModelError(f"{path}: objective.targets: {error}") from None
    need_different("objective.weights" if objective.weights else "objective.targets", [b.name for b in budgets])
    need_different("baselines.uniform", config.baselines.uniform)
    uniform = [("baselines.uniform", bits) for bits in config.baselines.uniform]
    uniform += [("objective.targets", b.bits) for b in budgets if b.bits is not None]
    for key, bits in uniform:
        need(bits in search.bits, key, "of bits in search.weights and search.activations", str(bits))
