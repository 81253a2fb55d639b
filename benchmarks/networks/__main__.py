"""python -m benchmarks.networks NAME --bits w2a2 -o FILE.onnx: one network with random weights as a file."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from benchmarks.networks import NETWORKS, Bits
from mpcompile.cli.console import complain
from mpcompile.errors import MpError, UsageError
from mpcompile.files import atomic_path, check_writable

FORMS = {
    "qonnx": "quantized, at --bits",
    "float": "the same topology in float32",
    "int8": "the float network as ONNX Runtime quantizes it: QDQ, 8 bits, weights per channel",
}


def parse_bits(text: str) -> Bits:
    """ "w1a2" → Bits(1, 2). Raises UsageError."""
    found = re.fullmatch(r"w([1-8])a([1-8])", text.lower())
    if not found:
        raise UsageError(f"--bits {text}: two numbers from 1 to 8 are accepted, as in w2a2")
    return Bits(int(found[1]), int(found[2]))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.networks", description=__doc__.split(": ")[1])
    parser.add_argument("name", choices=NETWORKS, metavar="NAME", help=", ".join(NETWORKS))
    parser.add_argument(
        "--bits",
        default="w2a2",
        help="of the layers between the first and the last, which have 8 (default: %(default)s)",
    )
    parser.add_argument(
        "--form",
        choices=FORMS,
        default="qonnx",
        help="; ".join(f"{k}: {v}" for k, v in FORMS.items()) + " (default: %(default)s)",
    )
    parser.add_argument("--size", type=int, metavar="N", help="height and width of the input (default: the usual)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: %(default)s")
    parser.add_argument("-o", "--output", required=True, metavar="FILE.onnx")
    options = parser.parse_args(arguments)
    try:
        return _write(options)
    except MpError as error:
        complain(str(error))
        return error.exit_code


def _write(options: argparse.Namespace) -> int:
    bits = parse_bits(options.bits) if options.form == "qonnx" else None
    if options.size is not None and not 32 <= options.size <= 1024:
        raise UsageError(f"--size {options.size}: 32 to 1024 is accepted")
    check_writable(options.output)
    size = {} if options.size is None else {"size": options.size}
    network = NETWORKS[options.name](bits, seed=options.seed, **size)
    if options.form == "int8":
        from benchmarks.onnxruntime_baseline import quantize_qdq

        quantize_qdq(network, Path(options.output))
    else:
        with atomic_path(options.output) as temporary:
            network.save(temporary)
    print(f"{options.output}: {options.name} {bits or options.form}, input {network.x.shape}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
