"""How code is made for devices of one kind: TVM's target, and binaries. BACKENDS has the kinds' records by name.

What linking gives is what the runtime's record of the kind (mpcompile.runtime.driver) loads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from mpcompile.compiler import library
from mpcompile.compiler.cuda.backend import CudaBackend
from mpcompile.errors import TargetError
from mpcompile.kernels.tvm_names import PrimFunc
from mpcompile.targets import Target
from mpcompile.targets.registry import Registry
from mpcompile.temporary import temporary_folder

NO_COMBINER = "-x86-machine-combiner:bool=0"
"""LLVM's machine combiner makes trees of a tile's sums (a + (b + c)) to shorten the chain of additions, which no full
tile waits for; the trees' registers are then spilled inside the loop. Integer sums only: floats are never reordered."""

CPU_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "x86_64": {"cl-opt": [NO_COMBINER]},
    "armv7l": {"mfloat-abi": "hard"},
}
"""Architecture of a CPU → what else TVM's target says."""

INSTRUCTIONS = {
    **{name: name for name in ("popcnt", "fma", "avx2", "avx512f", "avx512bw")},
    "avx512_vnni": "avx512vnni",
    "avx512_vpopcntdq": "avx512vpopcntdq",
    "avx512vbmi": "avx512vbmi",
    "asimddp": "dotprod",
}
"""Features of a board of which kernels use instructions → LLVM's names for them."""


class Backend(Protocol):
    @property
    def exports_c(self) -> bool:
        """Whether its objects can go into a C library, which a compiler of the board's links."""
        ...

    @property
    def runs_float(self) -> bool:
        """Whether float operators, which TVM's own functions compute, can be scheduled for it."""
        ...

    def tvm_dict(self, target: Target, threads: int) -> dict[str, Any]:
        """What tvm.target.Target takes; `threads` tells schedules how many there are."""
        ...

    def build_objects(
        self, functions: Mapping[str, PrimFunc], target: Target, folder: Path, instruments: Sequence[object] = ()
    ) -> list[Path]:
        """Files of machine code in `folder`, in which each function has its name. `instruments` see TVM's passes, from
        several threads. Raises TargetError where the board's keys do not fit together."""
        ...

    def link_objects(self, objects: Sequence[Path], target: Target) -> bytes:
        """What a bundle holds as its library. It is made beside the files. Raises TargetError where that fails."""
        ...


class CpuBackend:
    """LLVM, object files, and the system's linker."""

    exports_c = True
    runs_float = True

    def tvm_dict(self, target: Target, threads: int) -> dict[str, Any]:
        found: dict[str, Any] = {"kind": "llvm", "mcpu": target.mcpu, "num-cores": threads}
        if target.mattr:
            found["mattr"] = list(target.mattr)
        if target.mtriple:
            found["mtriple"] = target.mtriple
        return {**found, **CPU_OPTIONS.get(target.arch, {})}

    def build_objects(
        self, functions: Mapping[str, PrimFunc], target: Target, folder: Path, instruments: Sequence[object] = ()
    ) -> list[Path]:
        described = self.tvm_dict(target, target.cores)
        _check_features(target, described)
        return library.build_objects(functions, described, folder, instruments)

    def link_objects(self, objects: Sequence[Path], target: Target) -> bytes:
        return library.link_objects(objects, target.mtriple)


def _check_features(target: Target, described: dict[str, Any]) -> None:
    """Raises TargetError at a feature of the board that LLVM's CPU lacks: it would end the process at its first
    instruction."""
    import tvm
    from tvm.target.codegen import target_has_features

    cpu = tvm.target.Target(described)
    for feature in target.features:
        name = INSTRUCTIONS.get(feature)
        if name and not target_has_features([name], cpu):
            raise TargetError(
                f"board {target.name} has {feature}, and {target.mcpu} as LLVM knows it has not: "
                f'mattr = ["+{name}"] would be accepted'
            )


BACKENDS: Registry[Backend] = Registry(
    "code generator for devices of kind", {"cpu": CpuBackend(), "cuda": CudaBackend()}
)


def backend_of(target: Target) -> Backend:
    """Raises TargetError, in one line, where there is none."""
    return BACKENDS.of(target.kind)


def tvm_dict(target: Target, threads: int | None = None) -> dict[str, Any]:
    """What tvm.target.Target takes; `threads` (default: the board's cores) tells schedules how many there are."""
    return backend_of(target).tvm_dict(target, threads or target.cores)


def build_library(functions: Mapping[str, PrimFunc], target: Target) -> bytes:
    """The library of a bundle, in which each function has its name. Raises TargetError where linking fails."""
    backend = backend_of(target)
    with temporary_folder() as folder:
        return backend.link_objects(backend.build_objects(functions, target, folder), target)
