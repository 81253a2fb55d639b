"""Run by the Python that compiles: `bundle.py MODEL.onnx OUT.npz`: the bundle's outputs for random inputs, and these."""

import sys
import tempfile
from pathlib import Path

import numpy as np

import mpcompile as mp


def main(model: str, output: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        mp.compile(model, output=Path(folder) / "net.mpc")
        with mp.open_bundle(Path(folder) / "net.mpc", threads=1) as bundle:
            rng = np.random.default_rng(0)
            inputs = {p.name: rng.standard_normal((1, *p.shape)).astype(np.float32) for p in bundle.inputs}
            made = bundle.run(inputs)
            outputs = [made[p.name] for p in bundle.outputs] if isinstance(made, dict) else [made]
    named = {f"input {name}": x for name, x in inputs.items()}
    np.savez(output, **named, **{f"output {i}": y for i, y in enumerate(outputs)})


if __name__ == "__main__":
    main(*sys.argv[1:])
