"""What a step of the search's mixture costs beside one of plain quantization-aware training: forward, loss, backward.

    python -m benchmarks.mixture NETWORK plain|mixture      this process's peak memory above that of its weights, in
    bytes

The plain step is ours too, at W2A2: one candidate through the same quantizers. The mixture has 4 × 4 candidates, and
gradients go to its strengths and to all weights. A bilevel search pays two such steps for one step of its weights, one
of them without the weights' gradients.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

from benchmarks.row import Row
from mpcompile.latency.measure import local, measure

BITS = (1, 2, 3, 4)
BATCH = {"ResNet-20": 32, "ResNet-18": 4}
MAX_TIME, MAX_MEMORY = 1.3, 1.2


def rows(rounds: int) -> list[Row]:
    """Time and memory for each network."""
    found = []
    for name, batch in BATCH.items():
        plain, mixture = steps(name)
        timed = measure({"mixture": local(mixture), "plain": local(plain)}, rounds=rounds, min_time=0.001)
        size = "32×32" if name == "ResNet-20" else "56×56, without the 7×7 stem"
        about = f"{batch} images of {size}"
        found.append(
            Row(
                "search",
                f"{name}: mixture of {len(BITS)}×{len(BITS)} over plain training, one step",
                timed.ratio("mixture", "plain"),
                "× time",
                MAX_TIME,
                f"{about}; {timed['plain'].seconds:.2f} s plain",
            )
        )
        least, most = (peak(name, kind) for kind in ("plain", "mixture"))
        found.append(
            Row(
                "search",
                f"{name}: the same, peak memory",
                most / least,
                "× bytes",
                MAX_MEMORY,
                f"{least / 2**20:.0f} MiB plain",
            )
        )
    return found


def steps(name: str):
    """(plain step, mixture step) of one network, both ready to be called."""
    import torch

    from mpcompile.search.methods.ebs import EBS
    from mpcompile.search.models import ResNet

    torch.set_num_threads(1)
    torch.manual_seed(0)
    bits = dict(weights=BITS, activations=BITS)
    if name == "ResNet-20":
        network = ResNet((16, 32, 64), (3, 3, 3), **bits)
    else:
        network = ResNet((64, 128, 256, 512), (2, 2, 2, 2), side=56, classes=1000, **bits)
    images, labels = torch.rand(BATCH[name], *network.input_shape), torch.zeros(BATCH[name], dtype=torch.long)
    method, noise = EBS(network), torch.Generator()

    def step() -> None:
        network.zero_grad(set_to_none=True)
        method.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(network(images), labels).backward()

    def plain() -> None:
        network.assign(network.uniform(2, 2))
        step()

    def mixture() -> None:
        method.mix(network, 0.0, noise, learn=True)
        step()

    return plain, mixture


def peak(name: str, kind: str) -> int:
    """Bytes, of a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.mixture", name, kind], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mixture", description=__doc__.splitlines()[0])
    parser.add_argument("network", choices=BATCH)
    parser.add_argument("kind", choices=("plain", "mixture"))
    args = parser.parse_args()
    plain, mixture = steps(args.network)
    before = _memory("VmRSS")
    for _ in range(2):
        (plain if args.kind == "plain" else mixture)()
    print(_memory("VmHWM") - before)


def _memory(field: str) -> int:
    """Bytes of this process, as Linux counts them (getrusage's peak would be that of whoever started it)."""
    with open("/proc/self/status") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith(f"{field}:"))


if __name__ == "__main__":
    main()
