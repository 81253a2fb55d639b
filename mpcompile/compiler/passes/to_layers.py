"""The passes that take a graph of real-valued operators to one of layers, in order."""

from mpcompile.compiler.passes.base import Pass
from mpcompile.compiler.passes.between_floats import BetweenFloats
from mpcompile.compiler.passes.float_concats import FloatConcats
from mpcompile.compiler.passes.fold_tables import FoldTables
from mpcompile.compiler.passes.fold_transposes import FoldTransposes
from mpcompile.compiler.passes.fuse_layers import FuseLayers
from mpcompile.compiler.passes.restore_codes import RestoreCodes
from mpcompile.compiler.passes.sink_pools import SinkPools
from mpcompile.compiler.passes.sink_rearranges import SinkRearranges
from mpcompile.compiler.passes.sink_reshapes import SinkReshapes
from mpcompile.compiler.passes.split_concats import SplitConcats

# A split may put a quantizer behind the reshape of a slice: reshapes sink once more.
TO_LAYERS: tuple[Pass, ...] = (
    FoldTransposes(),
    SinkRearranges(),
    SinkReshapes(),
    SplitConcats(),
    SinkReshapes(),
    FoldTables(),
    SinkPools(),
    RestoreCodes(),
    BetweenFloats(),
    FuseLayers(),
    FloatConcats(),
)
