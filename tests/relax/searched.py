"""`python -m tests.relax.searched FILE.onnx SEED`: a residual CNN, bits drawn for each layer, as a search exports."""

import random
import sys
from pathlib import Path

from mpcompile.search.export import export
from mpcompile.search.layers import BitAssignment
from tests.search.nets import small


def write(path: Path, seed: int) -> None:
    network = small(widths=(64, 128, 256), blocks=(1, 1, 1), bits=(1, 2, 3, 4, 8), side=32, seed=seed)
    draw = random.Random(seed)
    named = network.uniform(2, 2)
    network.assign(
        BitAssignment(
            *(
                {name: draw.choice(choices[name].candidates) for name in bits}
                for bits, choices in ((named.weights, network.weights), (named.tensors, network.tensors))
            )
        )
    )
    export(network, path)


if __name__ == "__main__":
    write(Path(sys.argv[1]), int(sys.argv[2]))
