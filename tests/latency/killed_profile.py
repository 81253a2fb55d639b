"""A latency table that ends itself by SIGKILL within a measurement. As a program:
python -m tests.latency.killed_profile MODEL.onnx CELLS LOG [NUMBER]: after the first round of its measurement of this
number.

LOG gets a line for each measurement: of how many kernels it is, when it begins ("begin N") and when it has ended ("end N").
"""

import os
import signal
import sys
from pathlib import Path

import mpcompile as mp
from mpcompile.runtime import device


def main(model: str, cells: str, log: str, number: str = "0") -> None:
    measure, begun = device.measure, []

    def watched(subjects, **options):
        begun.append(len(subjects))
        rounds = []

        def killed(good, wanted):
            """Called before each round."""
            rounds.append(good)
            if len(begun) == int(number) and len(rounds) == 2:
                os.kill(os.getpid(), signal.SIGKILL)

        with open(log, "a") as file:
            file.write(f"begin {len(subjects)}\n")
            file.flush()
            found = measure(subjects, **{**options, "progress": killed})
            file.write(f"end {len(subjects)}\n")
        return found

    device.measure = watched
    mp.profile(Path(model), bits="w12a12", cache=cells, threads=1, rounds=2)


if __name__ == "__main__":
    main(*sys.argv[1:])
