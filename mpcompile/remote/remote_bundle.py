"""A bundle that runs on a device, for what compares it with the reference here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mpcompile.ir.plan import Plan
from mpcompile.runtime.archive import read_manifest
from mpcompile.runtime.device import Device
from mpcompile.runtime.variants import variants_of


class RemoteBundle:
    """Has `plan`, `run` and `run_traced`, as an open bundle; of a bundle with one variant."""

    def __init__(self, device: Device, path: Path, threads: int):
        self.device, self.path, self.threads = device, path, threads
        (variant,) = variants_of(path, read_manifest(path))
        self.plan: Plan = variant.plan

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs by name."""
        return self.device.run(self.path, inputs, self.threads)

    def run_traced(self, inputs: Mapping[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
        """One sample; tensor → Buffer.key → that buffer as its layer wrote it."""
        return self.device.trace(self.path, inputs, self.threads)
