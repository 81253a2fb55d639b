"""python -m tests.exporters MODULE …: makes the files of tests/data/exporters that the exporters of these modules write, in
an environment that has them (make exporters). `--only NAME,…`: of these files only."""

from __future__ import annotations

import argparse
import sys
import tempfile
import traceback
import warnings
from importlib import import_module
from pathlib import Path

from tests.exporters.kept import EXPORTERS, keep


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.exporters", description=__doc__)
    parser.add_argument("modules", nargs="+", metavar="MODULE")
    parser.add_argument("--only", default="", help="names of files, with commas")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    for module in args.modules:
        import_module(f"tests.exporters.{module}")
    failed = []
    asked = {f"tests.exporters.{module}" for module in args.modules}
    names = [n for n, e in EXPORTERS.items() if e.make.__module__ in asked]  # modules import each other
    for name in [n for n in names if not args.only or n in args.only.split(",")]:
        with tempfile.TemporaryDirectory() as folder:
            try:
                print(keep(name, Path(folder)), flush=True)
            except Exception:  # the others are made all the same
                traceback.print_exc()
                failed.append(name)
    if failed:
        print(f"not made: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
