"""A device: what runs and times kernels and bundles. This machine is one; others are behind TVM's RPC, with the same
methods, and the same code doing the work over there.

Everything that is measured together is measured by one call, on the device, by the project's one measurer, its
reference kernel included. Nothing but these methods is asked of a device: what they take are files, bytes and numbers.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields, replace
from importlib import metadata
from pathlib import Path
from typing import Protocol

import numpy as np

from mpcompile import __version__
from mpcompile.ir.plan import Plan
from mpcompile.latency import onnxruntime
from mpcompile.latency.in_network import timer_in_network
from mpcompile.latency.measure import Measurement, best_reference, measure
from mpcompile.latency.progress import Progress
from mpcompile.latency.timer import Timer, local
from mpcompile.runtime.archive import tvm_version
from mpcompile.runtime.bundle import Bundle, open_bundle
from mpcompile.runtime.cuda.devices import device_or_none as cuda_device
from mpcompile.runtime.driver import DRIVERS, check_here, driver_of
from mpcompile.runtime.machine import Machine
from mpcompile.runtime.single_kernel import SingleKernel
from mpcompile.runtime.state import State
from mpcompile.runtime.threads import resolve
from mpcompile.targets import cpu

NETWORK = "whole network"


@dataclass(frozen=True, eq=False)
class Kernel:
    """A built kernel by itself: lib.so, a plan of one call, its block of weights (uint8 [bytes]). `kind`, `arch`,
    `features`: its target's, checked against the device before any of its code is loaded."""

    library: bytes
    plan: Plan
    weights: np.ndarray
    kind: str
    arch: str
    features: tuple[str, ...]


@dataclass(frozen=True)
class About:
    """What a device says of itself. `cpu` as a record names it; `features` as /proc/cpuinfo spells them; `cpus`: that
    a process may use, `cores` of them physical; `l2`: bytes; `clock`: MHz, 0 where the kernel does not tell; `tvm` and
    `onnxruntime`: versions, "" where not installed; `cuda`: its CUDA device, "" where there is none, with the
    architecture of its cubins and bytes of its memory."""

    arch: str
    features: tuple[str, ...]
    cpu: str
    cores: int
    cpus: int
    l2: int
    clock: int
    system: str
    python: str
    mpcompile: str
    tvm: str
    onnxruntime: str
    cuda: str = ""
    cuda_arch: str = ""
    cuda_memory: int = 0

    @staticmethod
    def here() -> About:
        """This machine."""
        try:
            ort = metadata.version("onnxruntime")
        except metadata.PackageNotFoundError:
            ort = ""
        system = f"{platform.system()} {platform.release()}"
        gpu = cuda_device()
        return About(
            cpu.arch(),
            tuple(sorted(cpu.features())),
            cpu_name(),
            cpu.cores(),
            len(cpu.allowed()),
            1024 * cpu.cache_kib(2, "Unified"),
            cpu.clock_mhz(),
            system,
            platform.python_version(),
            __version__,
            tvm_version() or "",
            ort,
            gpu.name if gpu else "",
            gpu.arch if gpu else "",
            gpu.memory_bytes if gpu else 0,
        )

    def to_json(self) -> dict:
        return asdict(self)

    @staticmethod
    def from_json(d: dict) -> About:
        """Raises KeyError, TypeError where `d` is not of this form."""
        found = About(**{f.name: d[f.name] for f in fields(About)})
        return replace(found, features=tuple(found.features))

    def machines(self, name: str) -> dict[str, Machine]:
        """Kind → its device of that kind, as what code must fit; `name` is for messages."""
        found = {"cpu": Machine(name, "cpu", self.arch, self.cpu, frozenset(self.features))}
        if self.cuda:
            found["cuda"] = Machine(name, "cuda", self.cuda_arch, self.cuda, frozenset())
        return found

    def model(self, kind: str) -> str:
        """Of its device of that kind, as records name it."""
        return self.cuda if kind == "cuda" else self.cpu

    @property
    def hardware(self) -> str:
        """Architecture and model of its CPU, and of its CUDA device where there is one."""
        return ", ".join([f"{self.arch}, {self.cpu}", *([f"{self.cuda} ({self.cuda_arch})"] if self.cuda else [])])


class Device(Protocol):
    """`name` is for messages. Raises TargetError where the device cannot run what it is given, or is lost."""

    name: str
    about: About

    def time_kernels(
        self,
        kernels: Mapping[str, Kernel],
        threads: int,
        *,
        stirred: int,
        rounds: int,
        min_time: float,
        progress: Progress | None = None,
    ) -> Measurement:
        """Each kernel's time, in turn with the others: inputs just written, `stirred` bytes of memory read between."""
        ...

    def race(
        self,
        files: Mapping[str, Path],
        threads: int,
        *,
        rounds: int,
        min_time: float,
        variant: str | None = None,
        progress: Progress | None = None,
    ) -> Measurement:
        """Whole networks in turn: .mpc files (`variant` of them), and .onnx files by ONNX Runtime."""
        ...

    def profile(
        self,
        bundle: Path,
        threads: int,
        *,
        stirred: int,
        rounds: int,
        min_time: float,
        variant: str | None = None,
        progress: Progress | None = None,
    ) -> Measurement:
        """Each layer of the network in its place, and the network (NETWORK), in turn."""
        ...

    def run(
        self, file: Path, inputs: Mapping[str, np.ndarray], threads: int, *, variant: str | None = None
    ) -> dict[str, np.ndarray]:
        """A .mpc or .onnx file's outputs by name, in the model's types, of inputs by name, with or without a batch axis."""
        ...

    def trace(
        self, bundle: Path, inputs: Mapping[str, np.ndarray], threads: int, *, variant: str | None = None
    ) -> dict[str, dict[str, np.ndarray]]:
        """One sample through a bundle: tensor → Buffer.key → that buffer as its layer wrote it, halo included."""
        ...

    def reference(self) -> float:
        """Seconds of one run of the measurer's reference kernel, now, at its best: what devices are compared by."""
        ...

    def state(self) -> State:
        """Clock, heat and voltage now."""
        ...

    def close(self) -> None:
        """Gives the device back."""
        ...


class LocalDevice:
    """This machine, in this process."""

    name = "this machine"

    def __init__(self) -> None:
        self.about = About.here()

    def time_kernels(
        self,
        kernels: Mapping[str, Kernel],
        threads: int,
        *,
        stirred: int,
        rounds: int,
        min_time: float,
        progress: Progress | None = None,
    ) -> Measurement:
        threads = resolve(threads)
        for name, kernel in kernels.items():
            check_here(name, kernel)
        stir = {kind: DRIVERS.of(kind).cache_stirrer(stirred) for kind in {kernel.kind for kernel in kernels.values()}}
        timers: dict[str, Timer] = {}
        for name, kernel in kernels.items():
            single = SingleKernel(driver_of(kernel), kernel.library, kernel.plan, kernel.weights, threads)
            timers[name] = timer_in_network(single.timer(), [local(single.prepare)], stir[kernel.kind])
        return watched(lambda: measure(timers, rounds=rounds, min_time=min_time, progress=progress))

    def race(
        self,
        files: Mapping[str, Path],
        threads: int,
        *,
        rounds: int,
        min_time: float,
        variant: str | None = None,
        progress: Progress | None = None,
    ) -> Measurement:
        threads = resolve(threads)
        with ExitStack() as stack:
            timers = {
                name: stack.enter_context(open_bundle(file, threads, variant=variant)).timer()
                if Path(file).suffix != ".onnx"
                else onnxruntime.timer(onnxruntime.session(str(file), threads))
                for name, file in files.items()
            }
            return watched(lambda: measure(timers, rounds=rounds, min_time=min_time, progress=progress))

    def profile(
        self,
        bundle: Path,
        threads: int,
        *,
        stirred: int,
        rounds: int,
        min_time: float,
        variant: str | None = None,
        progress: Progress | None = None,
    ) -> Measurement:
        with open_bundle(bundle, resolve(threads), variant=variant) as opened:
            return watched(
                lambda: profile_opened(opened, stirred=stirred, rounds=rounds, min_time=min_time, progress=progress)
            )

    def run(
        self, file: Path, inputs: Mapping[str, np.ndarray], threads: int, *, variant: str | None = None
    ) -> dict[str, np.ndarray]:
        if Path(file).suffix == ".onnx":
            session = onnxruntime.session(str(file), resolve(threads))
            return onnxruntime.run(session, inputs)
        with open_bundle(file, resolve(threads), variant=variant) as opened:
            found = opened.run(inputs)
            return found if isinstance(found, dict) else {opened.outputs[0].name: found}

    def trace(
        self, bundle: Path, inputs: Mapping[str, np.ndarray], threads: int, *, variant: str | None = None
    ) -> dict[str, dict[str, np.ndarray]]:
        with open_bundle(bundle, resolve(threads), variant=variant) as opened:
            return opened.run_traced(inputs)

    def reference(self) -> float:
        return best_reference()

    def state(self) -> State:
        return State.here()

    def close(self) -> None:
        """Nothing to give back."""


def watched(measuring: Callable[[], Measurement]) -> Measurement:
    """A measurement, with warnings of what the machine suffered meanwhile."""
    before = State.here()
    found = measuring()
    return replace(found, warnings=tuple(State.here().complaints(before)))


def profile_opened(
    bundle: Bundle, *, stirred: int, rounds: int, min_time: float, progress: Progress | None = None
) -> Measurement:
    """Device.profile of a bundle that is open here."""
    layers = bundle.layer_timers()
    before: list[list[Timer]] = [[], *([timer] for timer in layers.values())]
    stir = driver_of(bundle.variant).cache_stirrer(stirred)
    timers = {NETWORK: bundle.timer()}
    timers |= {name: timer_in_network(layers[name], before[i], stir) for i, name in enumerate(layers)}
    return measure(timers, rounds=rounds, min_time=min_time, progress=progress)


def cpu_name() -> str:
    """This machine's CPU as a record names it: a marketing name alone may be of several generations."""
    vendor, family, model = cpu.vendor()
    return f"{cpu.name()} ({vendor} family {family} model {model})" if vendor else cpu.name()
