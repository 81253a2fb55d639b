"""The normalised graph: what every frontend produces and every pass works on. numpy only.

A graph is a list of nodes in topological order over named tensors. Tensors carry **no batch axis**: a
feature map is (C, H, W), a sequence (C, L), a vector (C,). Batch is one everywhere; the executor loops.

Two levels share the container:

* operators as the source model means them (`Quantize`, `Conv`, `Affine`, `Add`, …), real-valued, what a
  frontend emits;
* `Layer` (see `layer.py`), what the pass `fuse_layers` makes of them: integer contractions, then a float32
  epilogue, then one or several outputs, all of it exact by definition.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from mpcompile.errors import ModelError
from mpcompile.ir.grid import Grid
from mpcompile.ir.order import Order

ROUNDINGS = ("half_even", "half_up", "half_down", "ceil", "floor", "up", "down", "sign")
"""half_up: half away from 0; half_down: half to 0; up: away from 0; down: to 0; sign: the level is x ≥ 0."""


@dataclass(frozen=True)
class Quantizer:
    """float32 → the levels of a grid, per tensor, as the source format's standard says.

    `zero_first` (QONNX):  u = clamp(round(x/spacing + zero))        ties are decided after the zero point
    otherwise (ONNX):      u = clamp(round(x/spacing) + zero)
    with umin ≤ u ≤ umin + grid.levels − 1, level k = u − umin, and real value = scale·q = spacing·(u − zero).

    `spacing` is the real distance between neighbouring levels, `scale = spacing/grid.step` belongs to q.
    With rounding "sign" (BipolarQuant) the level is 1 where x ≥ 0, else 0.
    """

    grid: Grid
    spacing: float
    zero: float = 0.0
    umin: int = 0
    rounding: str = "half_even"
    zero_first: bool = True

    def __post_init__(self):
        if not (np.isfinite(self.spacing) and self.spacing > 0):
            raise ModelError(f"a quantizer's scale must be positive and finite, not {self.spacing}")
        if self.rounding not in ROUNDINGS:
            raise ModelError(f"rounding {self.rounding!r} is not one of {', '.join(ROUNDINGS)}")

    @property
    def scale(self) -> float:
        """Real value of q = 1."""
        return self.spacing / self.grid.step


@dataclass(frozen=True)
class TensorType:
    """Shape without batch; `quantizer` where the tensor holds a grid's values (real value = scale·q)."""

    shape: tuple[int, ...]
    quantizer: Quantizer | None = None

    @property
    def grid(self) -> Grid | None:
        return self.quantizer.grid if self.quantizer else None


@dataclass(eq=False)
class QuantizedWeight:
    """Integer weights: `q` int64 [O, C/groups, KH, KW] (conv; 1-d: [O, C/groups, K]) or [O, I] (dense), on `grid`.

    `scale`: float64 [O], or [1] per tensor; real weight = scale·q.
    """

    q: np.ndarray
    grid: Grid
    scale: np.ndarray


@dataclass(eq=False)
class Node:
    """One operator. `name` is the source node's, for messages; `inputs` and `outputs` are tensor names."""

    name: str
    inputs: list[str]
    outputs: list[str]

    @property
    def op(self) -> str:
        return type(self).__name__


@dataclass(eq=False)
class Quantize(Node):
    """x → codes. The output's TensorType carries the same quantizer."""

    quantizer: Quantizer


@dataclass(eq=False)
class Conv(Node):
    """Convolution with quantized weights over a (C, H, W) or (C, L) input; output real-valued.

    `pads` is (before, after) per spatial axis, of real zeros. `bias` float64 [O] or None.
    Weights that are not quantized stay in a `FloatOp`.
    """

    weight: QuantizedWeight
    bias: np.ndarray | None = None
    strides: tuple[int, ...] = (1, 1)
    pads: tuple[tuple[int, int], ...] = ((0, 0), (0, 0))
    dilations: tuple[int, ...] = (1, 1)
    groups: int = 1


@dataclass(eq=False)
class Dense(Node):
    """x (I,) → (O,); quantized weights [O, I]; `bias` float64 [O] or None."""

    weight: QuantizedWeight
    bias: np.ndarray | None = None


@dataclass(eq=False)
class Affine(Node):
    """a[c]·x + b[c] along axis 0: BatchNorm, Mul, Add, Sub, Div by constants. a, b float64 [C] or [1]."""

    a: np.ndarray
    b: np.ndarray


@dataclass(eq=False)
class Clip(Node):
    """min(max(x, lo), hi): Relu (0, inf), Relu6, HardTanh, Clip."""

    lo: float = -np.inf
    hi: float = np.inf


@dataclass(eq=False)
class PRelu(Node):
    """x where x ≥ 0, else slope[c]·x. slope float64 [C] or [1]; LeakyRelu too."""

    slope: np.ndarray


@dataclass(eq=False)
class Table(Node):
    """A function of one quantized tensor: `values`, float32 [levels], at each level of the input's grid (Sigmoid, SiLU,
    HardSwish, …). Where the output's type has a quantizer, they lie on its grid."""

    values: np.ndarray
    quantizer: Quantizer | None = None


@dataclass(eq=False)
class Smooth(Node):
    """A smooth function by its exact definition in ir/smooth.py, by name, with its parameters: of what is on no grid."""

    function: str
    parameters: tuple[float, ...] = ()


@dataclass(eq=False)
class Add(Node):
    """x + y, same shapes."""


@dataclass(eq=False)
class Mul(Node):
    """x · y, same shapes."""


@dataclass(eq=False)
class Larger(Node):
    """max(x, y), same shapes. Of two tensors on one grid it is on that grid."""


@dataclass(eq=False)
class Smaller(Node):
    """min(x, y), same shapes. Of two tensors on one grid it is on that grid."""


@dataclass(frozen=True)
class Along:
    """Which elements of an axis a View reads: `size` of them, element i at start + step·(i // repeat)."""

    size: int
    start: int = 0
    step: int = 1
    repeat: int = 1

    def indices(self) -> np.ndarray:
        """int64 [size]."""
        return self.start + self.step * (np.arange(self.size) // self.repeat)


@dataclass(frozen=True)
class Listed:
    """The same one by one: element i is element numbers[i]."""

    numbers: tuple[int, ...]

    @property
    def size(self) -> int:
        return len(self.numbers)

    def indices(self) -> np.ndarray:
        """int64 [size]."""
        return np.array(self.numbers, np.int64)


Picked = Along | Listed


@dataclass(eq=False)
class View(Node):
    """Elements of the input, picked along each of its axes alone: a slice or part of a split, pixels repeated by an
    upsampling to the nearest or by a padding, a channel's value repeated over a map. A quantized tensor's view is on the
    same grid."""

    along: tuple[Picked, ...] = ()


@dataclass(eq=False)
class Rearrange(Node):
    """Elements of the input in another order, as a tensor of the shape `whole`, and of that what `along` picks: a
    transpose, DepthToSpace, a channel shuffle. A quantized tensor's is on the same grid. Passes make it of reshapes and
    transposes."""

    order: Order
    whole: tuple[int, ...]
    along: tuple[Picked, ...]


@dataclass(frozen=True, eq=False)
class Between:
    """Where the elements of a resized axis lie: element i between elements `first[i]` and `second[i]`, of which it takes
    `of_first[i]` and `of_second[i]`. int32 and float32, [size]."""

    first: np.ndarray
    second: np.ndarray
    of_first: np.ndarray
    of_second: np.ndarray

    @property
    def size(self) -> int:
        return len(self.first)


@dataclass(eq=False)
class Interpolate(Node):
    """Bilinear interpolation of a quantized map (C, H, W): each pixel is made of four, with the weights of their line times
    those of their column. Products and sums are float32 operations of their own, in this order:

        w11·x11 + w12·x12 + w21·x21 + w22·x22        wij = (weight of line i) · (weight of column j)
    """

    lines: Between
    columns: Between


@dataclass(eq=False)
class Concat(Node):
    """Along axis 0 (channels)."""


@dataclass(eq=False)
class Pooling(Node):
    """kind "max" or "avg" over (C, H, W) or (C, L). Padding never counts for max; for avg it is real zeros and
    counts in the divisor (a source operator that excludes it from the divisor and has padding is a FloatOp).
    Global pooling: kernel = the whole map. Where the output's type has a quantizer, see `Trunc`."""

    kind: str = "max"
    kernel: tuple[int, ...] = (2, 2)
    strides: tuple[int, ...] = (2, 2)
    pads: tuple[tuple[int, int], ...] = ((0, 0), (0, 0))


@dataclass(eq=False)
class Reshape(Node):
    """Row-major reshape of the axes after batch to `shape` (Flatten, Reshape, Squeeze, Unsqueeze)."""

    shape: tuple[int, ...] = ()


@dataclass(eq=False)
class Transpose(Node):
    """Permutes the axes after batch; axis numbers count them from 0."""

    perm: tuple[int, ...] = ()


@dataclass(eq=False)
class FloatOp(Node):
    """An operator that runs in float32 through TVM's own operators.

    `model` is a serialised single-node ONNX ModelProto whose graph inputs and outputs are, in order, this
    node's `inputs` and `outputs`, WITH a leading batch axis of 1; constants are initializers inside it. `reason` says why
    it is no operator on integers.
    """

    op_type: str = ""
    model: bytes = b""
    reason: str = ""


@dataclass(eq=False)
class Graph:
    """`types` maps every tensor name; `inputs`/`outputs` are the model's, float32 as in the source.

    `source` says which file it came from; `batch` is the model's own batch size (None: free). `dtypes`: input or output →
    numpy's name of its type in the source, where that is not float32; the graph holds such values in float32.
    """

    nodes: list[Node] = field(default_factory=list)
    types: dict[str, TensorType] = field(default_factory=dict)
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    source: str = ""
    batch: int | None = None
    dtypes: dict[str, str] = field(default_factory=dict)

    def producer(self) -> dict[str, Node]:
        """Tensor name → the node that writes it."""
        return {t: n for n in self.nodes for t in n.outputs}

    def consumers(self) -> dict[str, list[Node]]:
        """Tensor name → the nodes that read it, in order; a node that reads it twice is there twice."""
        found: dict[str, list[Node]] = {t: [] for t in self.types}
        for n in self.nodes:
            for t in n.inputs:
                found[t].append(n)
        return found

    def check(self) -> Graph:
        """Topological order, every tensor typed and written once. Raises ModelError naming the node; returns self."""
        known = set(self.inputs)
        for n in self.nodes:
            for t in n.inputs:
                if t not in known:
                    raise ModelError(f"node {n.name} ({n.op}) reads {t}, which nothing before it writes")
            for t in n.outputs:
                if t in known:
                    raise ModelError(f"node {n.name} ({n.op}) writes {t} a second time")
                if t not in self.types:
                    raise ModelError(f"node {n.name} ({n.op}) writes {t}, whose shape is not known")
                known.add(t)
        for t in self.outputs:
            if t not in known:
                raise ModelError(f"the model's output {t} is written by no node")
        return self
