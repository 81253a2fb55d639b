"""From a quantized ONNX file (QONNX, or QDQ/QCDQ) to a verified bundle.

    python examples/compile_your_own/onnx_file.py MODEL.onnx [-o MODEL.mpc] [--target native]

The same from the command line:

    mpcompile compile MODEL.onnx --target native -o MODEL.mpc
    mpcompile verify MODEL.onnx MODEL.mpc
    mpcompile bench MODEL.mpc
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import mpcompile as mp
from mpcompile.errors import MpError


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("-o", "--output", type=Path, help="default: MODEL.mpc beside the model")
    parser.add_argument("--target", default="native")
    options = parser.parse_args(arguments)
    try:
        bundle_file = mp.compile(options.model, target=options.target, output=options.output)
        found = mp.verify(options.model, bundle_file)
        print(found.summary)
        with mp.open_bundle(bundle_file, threads=1) as bundle:
            for port in (*bundle.inputs, *bundle.outputs):
                print(f"{port.name}: float32 {list(port.shape)}")
            print(f"{bundle_file}: {bundle.bench(seconds=0.3).seconds * 1e6:.0f} µs on one core")
    except MpError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0 if found.equal else 1


if __name__ == "__main__":
    raise SystemExit(main())
