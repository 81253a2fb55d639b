"""The TOML file of a search: read, checked, typed. Every error names the file and the key. No torch here.

    seed = 0                     # of weights, of the order of images and of every draw

    [data]                       # all of it may be left out: scikit-learn's digits in clutter, 32×32
    path = "fashion"             # a folder or .npz file, relative to this file (data.py says which); left out: the digits
    side = 32                    # images become so many pixels high and wide
    train = 1600                 # only the first so many images to train on; 0: all
    test = 1000                  # only the first so many images to test with; 0: all

    [network]                    # a residual CNN; ResNet-20 is 16, 32, 64 and 3, 3, 3
    widths = [64, 128, 256]      # channels of each stage
    blocks = [1, 2, 1]           # residual blocks of each stage
    stem_stride = 1              # of the first convolution: 1 or 2
    weight = "edmips"            # quantizer of weights: "edmips" or "dorefa"
    activation = "pact"          # quantizer of activations: "pact"

    [search]
    method = "ebs"               # how bits are searched: "ebs"
    gumbel = false               # whether noise is added to the strengths: the stochastic variant
    weights = [1, 2, 3, 4, 8]    # candidate bits of weights
    activations = [1, 2, 3, 4, 8] # candidate bits of activations
    epochs = 10                  # of the search
    warmup = 2                   # epochs before the strengths move, for the first budget only
    batch = 64                   # images of a step, in every phase
    rate = 2e-3                  # learning rate of the weights
    strength_rate = 0.03         # learning rate of the strengths
    hot = 1.0                    # temperature of the strengths' softmax at the beginning
    cold = 0.2                   # temperature of the strengths' softmax at the end

    [objective]
    kind = "latency"             # what bits cost: "latency" or "bitops"
    targets = ["w2a2", "60 %", "2.5 ms"] # budgets, each a point of the front: what a uniform network costs, or so far
                                 # on the way from the fewest bits' cost (0 %) to the most bits' (100 %), or absolute
                                 # (ms, us, s, MBitOps, GBitOps)
    weights = []                 # instead of targets: what the widest bits' cost adds to the loss

    [pretrain]                   # in float; every other network is trained from this one
    epochs = 10                  # of training in float
    rate = 2e-3                  # learning rate in float

    [retrain]                    # at its bits, searched or uniform
    epochs = 10                  # of training at the bits
    rate = 1e-3                  # learning rate at the bits

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
import re
import tomllib
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path

from mpcompile.errors import ModelError, UsageError

QUANTIZERS = {"weight": ("edmips", "dorefa"), "activation": ("pact",)}
"""Names of quantizers.py, for a check that needs no torch."""
PAIR = re.compile(r"w([1-8])a([1-8])")
UNITS = {
    "%": ("share", 0.01),
    "ms": ("latency", 1e-3),
    "us": ("latency", 1e-6),
    "s": ("latency", 1.0),
    "GBitOps": ("bitops", 1e9),
    "MBitOps": ("bitops", 1e6),
}


@dataclass(frozen=True)
class Budget:
    """A target: a share of the way from the least to the greatest cost, or seconds (kind "latency"), or BitOps, or
    (kind "uniform") what a network of `bits` everywhere costs; or (kind "weight") the weight of the cost in the
    loss."""

    name: str
    kind: str
    amount: float
    bits: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Data:
    path: str = ""
    side: int = 32
    train: int = 0
    test: int = 0


@dataclass(frozen=True)
class NetworkShape:
    widths: list[int] = field(default_factory=lambda: [64, 128, 256])
    blocks: list[int] = field(default_factory=lambda: [1, 2, 1])
    stem_stride: int = 1
    weight: str = "edmips"
    activation: str = "pact"


@dataclass(frozen=True)
class Search:
    method: str = "ebs"
    gumbel: bool = False
    weights: list[int] = field(default_factory=lambda: [1, 2, 3, 4, 8])
    activations: list[int] = field(default_factory=lambda: [1, 2, 3, 4, 8])
    epochs: float = 10.0
    warmup: float = 2.0
    batch: int = 64
    rate: float = 2e-3
    strength_rate: float = 0.03
    hot: float = 1.0
    cold: float = 0.2


@dataclass(frozen=True)
class Objective:
    kind: str = "latency"
    targets: list[str] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Training:
    epochs: float = 10.0
    rate: float = 1e-3


@dataclass(frozen=True)
class Baselines:
    uniform: list[str] = field(default_factory=list)
    float: bool = False
    int8: bool = False


@dataclass(frozen=True)
class Measure:
    target: str = "native"
    threads: int = 0
    rounds: int = 21
    tracker: str = ""
    key: str = ""


@dataclass(frozen=True)
class Config:
    """A search, whole. `data.path` is absolute, or "" for the digits; `train`, `test` and `threads` are 0 where left
    out."""

    seed: int = 0
    data: Data = Data()
    network: NetworkShape = NetworkShape()
    search: Search = Search()
    objective: Objective = Objective()
    pretrain: Training = Training(rate=2e-3)
    retrain: Training = Training()
    baselines: Baselines = Baselines()
    measure: Measure = Measure()

    def budgets(self) -> list[Budget]:
        """The points of the front, in the file's order. Raises ModelError at a target that cannot be read."""
        if self.objective.weights:
            return [Budget(f"weight-{w:g}", "weight", w) for w in self.objective.weights]
        return [budget(text, self.objective.kind) for text in self.objective.targets]

    def key(self, *sections: str) -> str:
        """sha256 of these sections and the seed: what a result depends on; not which tracker devices were got from."""
        chosen = {name: asdict(getattr(self, name)) for name in sections}
        for part in ("tracker", "key"):
            chosen.get("measure", {}).pop(part, None)
        return hashlib.sha256(json.dumps([self.seed, chosen], sort_keys=True).encode()).hexdigest()


def budget(text: str, objective: str) -> Budget:
    """ "w2a2", "60 %", "2.5 ms", "1.2 GBitOps". Raises ModelError at anything else."""
    if PAIR.fullmatch(text.lower()):
        return Budget(f"target-{text.lower()}", "uniform", 0.0, pair(text))
    found = re.fullmatch(r"\s*([0-9.]+(?:[eE][-+]?[0-9]+)?)\s*(%|[A-Za-z]+)\s*", text)
    try:
        number = float(found[1])
        kind, factor = UNITS[found[2]]
    except (TypeError, ValueError, KeyError):
        raise ModelError(f'target {text!r} is not like "w2a2", "60 %", "2.5 ms" or "1.2 GBitOps"') from None
    if kind not in ("share", objective):
        raise ModelError(f"target {text!r} is no number of an objective of {objective}")
    if not 0 < number < float("inf"):
        raise ModelError(f"target {text!r} must be above 0")
    return Budget(f"target-{number:g}{'pc' if found[2] == '%' else found[2]}", kind, number * factor)


def pair(text: str) -> tuple[int, int]:
    """ "w2a4" → (2, 4). Raises ModelError at anything else."""
    found = PAIR.fullmatch(text.lower())
    if not found:
        raise ModelError(f"{text!r} is not like w2a4")
    return int(found[1]), int(found[2])


def read(path: str | os.PathLike) -> Config:
    """Raises UsageError where there is no such file, ModelError naming file and key at what is wrong in it."""
    path = Path(path)
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} is no TOML file: {error}") from error
    config = _section(Config, given, f"{path}", "")
    if config.data.path:
        config = Config(
            **{
                **vars(config),
                "data": Data(**{**vars(config.data), "path": str((path.parent / config.data.path).resolve())}),
            }
        )
    _check(config, path)
    return config


def _section(kind, given: dict, where: str, prefix: str):
    """A dataclass from a table. Unknown keys and other types are errors."""
    known = {f.name: f for f in fields(kind)}
    for key in given:
        if key not in known:
            raise ModelError(
                f"{where}: there is no key {prefix}{key}; {', '.join(prefix + k for k in known)} would be accepted"
            )
    values = {}
    for key, value in given.items():
        default = known[key].default if known[key].default is not MISSING else known[key].default_factory()
        if hasattr(default, "__dataclass_fields__"):
            if not isinstance(value, dict):
                raise ModelError(f"{where}: {prefix}{key} must be a table, not {value!r}")
            values[key] = _section(type(default), value, where, f"{prefix}{key}.")
        else:
            values[key] = _typed(value, known[key].type, f"{where}: {prefix}{key}")
    return kind(**values)


def _typed(value, hint: str, where: str):
    """`value` as the annotation says: int, float, bool, str or a list of one of these."""

    def one(item, wanted):
        if wanted is float and type(item) is int:
            return float(item)
        if type(item) is not wanted:
            raise ModelError(f"{where} must be {said}, not {value!r}")
        return item

    names = {"int": int, "float": float, "bool": bool, "str": str}
    inner = hint.removeprefix("list[").removesuffix("]")
    said = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text"}[inner]
    if hint.startswith("list["):
        said = f"a list, each {said}"
        if not isinstance(value, list):
            raise ModelError(f"{where} must be {said}, not {value!r}")
        return [one(item, names[inner]) for item in value]
    return one(value, names[inner])


def _check(config: Config, path: Path) -> None:
    s, n, o = config.search, config.network, config.objective

    def need(right: bool, key: str, wanted: str, value) -> None:
        if not right:
            raise ModelError(f"{path}: {key} must be {wanted}, not {value!r}")

    for key, bits in (("search.weights", s.weights), ("search.activations", s.activations)):
        need(
            len(set(bits)) == len(bits) >= 2 and all(1 <= b <= 8 for b in bits),
            key,
            "at least two different bitwidths from 1 to 8",
            bits,
        )
    need(s.method == "ebs", "search.method", '"ebs"', s.method)
    need(config.seed >= 0, "seed", "0 or more", config.seed)
    need(config.data.side >= 8, "data.side", "at least 8", config.data.side)
    need(
        min(config.data.train, config.data.test) >= 0,
        "data.train and data.test",
        "0 or more",
        [config.data.train, config.data.test],
    )
    need(bool(n.widths) and min(n.widths) >= 1, "network.widths", "one or more widths of at least 1", n.widths)
    need(
        len(n.blocks) == len(n.widths) and min(n.blocks) >= 1,
        "network.blocks",
        "as many numbers of at least 1 as widths",
        n.blocks,
    )
    for kind, name in (("weight", n.weight), ("activation", n.activation)):
        need(name in QUANTIZERS[kind], f"network.{kind}", " or ".join(f'"{q}"' for q in QUANTIZERS[kind]), name)
    need(n.stem_stride in (1, 2), "network.stem_stride", "1 or 2", n.stem_stride)
    for key, value in (
        ("search.epochs", s.epochs),
        ("search.rate", s.rate),
        ("search.strength_rate", s.strength_rate),
        ("search.hot", s.hot),
        ("search.cold", s.cold),
        ("pretrain.epochs", config.pretrain.epochs),
        ("pretrain.rate", config.pretrain.rate),
        ("retrain.epochs", config.retrain.epochs),
        ("retrain.rate", config.retrain.rate),
        ("search.batch", s.batch - 1),
    ):
        need(
            0 < value < float("inf"),
            key,
            "above 0" if key != "search.batch" else "at least 2",
            value if key != "search.batch" else s.batch,
        )
    need(s.warmup >= 0, "search.warmup", "0 or more", s.warmup)
    need(config.measure.threads >= 0, "measure.threads", "0 (all physical cores) or more", config.measure.threads)
    need(config.measure.rounds >= 1, "measure.rounds", "at least 1", config.measure.rounds)
    need(o.kind in ("latency", "bitops"), "objective.kind", '"latency" or "bitops"', o.kind)
    need(
        bool(o.targets) != bool(o.weights),
        "objective",
        "given either targets or weights",
        {"targets": o.targets, "weights": o.weights},
    )
    need(all(w >= 0 for w in o.weights), "objective.weights", "0 or more", o.weights)
    for key, read_all in (
        ("objective.targets", config.budgets),
        ("baselines.uniform", lambda: [pair(t) for t in config.baselines.uniform]),
    ):
        try:
            found = read_all()
        except ModelError as error:
            raise ModelError(f"{path}: {key}: {error}") from None
        names = [str(f) for f in found]
        need(len(set(names)) == len(names), key, "without repetition", names)
    uniform = [("baselines.uniform", pair(t)) for t in config.baselines.uniform]
    uniform += [("objective.targets", b.bits) for b in config.budgets() if b.kind == "uniform"]
    for key, (w, a) in uniform:
        need(
            w in s.weights and a in s.activations,
            key,
            "of bits in search.weights and search.activations",
            f"w{w}a{a}",
        )
