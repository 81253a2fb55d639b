"""What works on this machine, what is missing, and the command that mends it. TVM is loaded only to try it."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from mpcompile.cli.address_space import LEAST_COMPILING, check_address_space
from mpcompile.errors import ResourceError, lack_of_memory
from mpcompile.targets import cpu

WITHOUT = "without its compiler"
MORE_MEMORY = "more memory, or a higher limit of it (ulimit -v)"
PINS = {"apache-tvm": "0.27.0.post1", "apache-tvm-ffi": "0.1.14.post1"}
RELAY_TVM = "xtc-tvm-python-bindings"
OPTIONAL = {
    # distribution: (module, what needs it, what installs it)
    "onnx": ("onnx", "reading models", 'pip install "mpcompile[compile]"'),
    "onnx-ir": ("onnx_ir", "reading models", 'pip install "mpcompile[compile]"'),
    "torch": (
        "torch",
        "search and the demo",
        "pip install torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu",
    ),
    "onnxscript": ("onnxscript", "searching a module of one's own", 'pip install "mpcompile[search]"'),
    "brevitas": ("brevitas", "the example of a Brevitas module", "pip install brevitas==0.13.4 onnxoptimizer"),
    "onnxruntime": ("onnxruntime", "comparisons with ONNX Runtime", "pip install onnxruntime==1.31.1"),
    "scipy": ("scipy", "choosing bits for quantize", 'pip install "mpcompile[quantize]"'),
    "qonnx": ("qonnx", "verifying how QONNX files are read", 'pip install "mpcompile[verify]"'),
    "xgboost-cpu": ("xgboost", "tuning", 'pip install "mpcompile[tune]"'),
    "nvidia-cuda-nvrtc-cu12": (
        "nvidia.cuda_nvrtc",
        "compiling for CUDA devices",
        'pip install "mpcompile[cuda]"',
    ),
    "jinja2": ("jinja2", "reports, and so a search", 'pip install "mpcompile[report]"'),
    "scikit-learn": ("sklearn", "the digits that are searched on where no data are named", "pip install scikit-learn"),
    "pillow": ("PIL", "searching on folders of images", "pip install pillow"),
}


@dataclass(frozen=True)
class Finding:
    """`ok`: True, False where the base does not work without it, None where something optional is absent."""

    name: str
    ok: bool | None
    found: str
    mend: str = ""

    def to_json(self) -> dict:
        return {"name": self.name, "ok": self.ok, "found": self.found, "mend": self.mend}


def examine() -> list[Finding]:
    """Everything, the base first."""
    return [
        _python(),
        *map(_pinned, PINS),
        _numpy(),
        _runtime(),
        _target(),
        _threads(),
        _linker(),
        _rpc(),
        _cuda(),
        *map(_optional, OPTIONAL),
        _relay(),
    ]


def require_compiler() -> None:
    """Raises MissingDependency where TVM comes, or was told to come, without its compiler, ResourceError where there is
    too little memory for it."""
    from mpcompile.errors import MissingDependency

    check_address_space(LEAST_COMPILING)
    finding = _runtime()
    if finding.mend == MORE_MEMORY:
        raise ResourceError(f"TVM with its compiler, which compiling needs, does not load: {finding.found}")
    if not finding.ok or finding.found.endswith(WITHOUT):
        unset = (
            "unset TVM_USE_RUNTIME_LIB" if os.environ.get("TVM_USE_RUNTIME_LIB") else finding.mend or "mpcompile doctor"
        )
        raise MissingDependency(f"compiling needs TVM with its compiler, and here it is {finding.found}: {unset}")


def _python() -> Finding:
    found = f"{sys.version.split()[0]} ({sys.executable})"
    return Finding(
        "Python",
        sys.version_info >= (3, 11),
        found,
        "" if sys.version_info >= (3, 11) else "install Python 3.11 or later",
    )


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _pinned(distribution: str) -> Finding:
    """The pair is fixed: with apache-tvm-ffi 0.1.15.post1 and later tvm.ir.save_json, and so tuning, crashes."""
    found, wanted = _version(distribution), PINS[distribution]
    command = "pip install " + " ".join(f"{name}=={version}" for name, version in PINS.items())
    if found == wanted:
        return Finding(distribution, True, wanted)
    return Finding(distribution, False, f"{found}, and it must be {wanted}" if found else "not installed", command)


def _numpy() -> Finding:
    found = _version("numpy")
    return Finding("numpy", bool(found), found or "not installed", "" if found else "pip install numpy")


def _runtime() -> Finding:
    """Really loads TVM: a wheel for another system is noticed only so."""
    try:
        import tvm
        from tvm.base import _LOADED_LIBS
    except Exception as error:
        if lack := lack_of_memory(error):
            return Finding("TVM loads", False, str(lack), MORE_MEMORY)
        reason = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        return Finding(
            "TVM loads",
            False,
            reason[-1].strip(),
            f"pip install apache-tvm=={PINS['apache-tvm']} apache-tvm-ffi=={PINS['apache-tvm-ffi']}",
        )
    if "tvm_compiler" in _LOADED_LIBS:
        return Finding("TVM loads", True, f"{tvm.__version__}, with its compiler")
    if lack := _no_memory_for_compiler(Path(_LOADED_LIBS["tvm_runtime"]._name)):
        return Finding("TVM loads", False, str(lack), MORE_MEMORY)
    return Finding("TVM loads", True, f"{tvm.__version__}, {WITHOUT}")


def _no_memory_for_compiler(runtime: Path) -> ResourceError | None:
    """TVM does not tell why it came without its compiler, whose library would lie beside its runtime's; so that is tried
    once more. None where it was told to, or memory is not what it lacks."""
    library = runtime.with_name(runtime.name.replace("runtime", "compiler"))
    if os.environ.get("TVM_USE_RUNTIME_LIB") or not library.exists():
        return None
    try:
        ctypes.CDLL(str(library))
    except OSError as error:
        return lack_of_memory(error)
    return None


def _target() -> Finding:
    from mpcompile.errors import TargetError
    from mpcompile.targets import native_target

    try:
        t = native_target()
    except TargetError as error:
        return Finding("CPU", False, str(error), "mpcompile targets")
    has = [
        name
        for flag, name in (
            ("sse4_2", "SSE4.2"),
            ("fma", "FMA"),
            ("avx2", "AVX2"),
            ("avx512f", "AVX-512"),
            ("avx512_vnni", "VNNI"),
            ("avx512_vpopcntdq", "VPOPCNTDQ"),
            ("asimd", "NEON"),
            ("neon", "NEON"),
            ("asimddp", "dot product"),
        )
        if flag in t.features
    ]
    caches = {"L1d": cpu.cache_kib(1), "L2": cpu.cache_kib(2, "Unified")}
    told = ", ".join(f"{cache} {kib} KiB" for cache, kib in caches.items() if kib)
    return Finding("CPU", True, f"{t.description} ({', '.join(has)})" + (f"; {told}" if told else ""))


def _threads() -> Finding:
    return Finding("threads", True, f"{cpu.cores()} cores, {len(cpu.allowed())} CPUs that this process may use")


def _linker() -> Finding:
    from mpcompile.compiler.linker import ADVICE, find_linker
    from mpcompile.errors import TargetError

    try:
        command = find_linker()
    except TargetError as error:
        return Finding("linker", None, str(error), "unset CC")
    return Finding(
        "linker",
        True if command else None,
        " ".join(command) if command else "none: bundles run, nothing compiles",
        "" if command else ADVICE,
    )


def _rpc() -> Finding:
    """What `serve` and `tracker` need beside TVM: parts of the base, which an environment may lack all the same."""
    missing = [name for name in ("psutil", "cloudpickle") if _version(name) is None]
    if missing:
        return Finding("devices", False, f"{', '.join(missing)} not installed", f"pip install {' '.join(missing)}")
    return Finding("devices", True, "serve, tracker and devices work")


def _cuda() -> Finding:
    """The driver, and the devices that it lets this process use."""
    from mpcompile.errors import TargetError
    from mpcompile.runtime.cuda.devices import devices, driver_version

    name, mend = (
        "CUDA",
        "for bundles for GPUs: NVIDIA's driver, whose libcuda.so.1 the loader finds",
    )
    try:
        found, version = devices(), driver_version()
    except TargetError as error:
        return Finding(name, None, str(error), mend)
    told = [f"{d.name} ({d.arch}, {d.memory_bytes / (1 << 30):.1f} GiB, {d.multiprocessors} SMs)" for d in found]
    return Finding(name, True, f"driver of CUDA {version}: {', '.join(told)}; bundles run on the first")


def _relay() -> Finding:
    """TVM 0.19, which has Relay, in its environment of its own: whether it is there, not whether it loads."""
    from mpcompile.errors import MissingDependency
    from mpcompile.tvm_frontend.child import RELAY, relay_python

    name, purpose = "Relay", "mpcompile.relay, compile --ir relay"
    try:
        python = relay_python()
    except MissingDependency as error:
        return Finding(name, None, f"absent ({purpose})", str(error))
    asked = f"from importlib import metadata; print(metadata.version({RELAY_TVM!r}))"
    done = subprocess.run([python, "-c", asked], capture_output=True, text=True)
    if done.returncode:
        return Finding(name, None, f"{python} has no {RELAY_TVM} ({purpose})", f"make relay-env, or set {RELAY}")
    return Finding(name, True, f"{RELAY_TVM} {done.stdout.strip()} ({python})")


def _has(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of the package that it is in
        return False


def _optional(distribution: str) -> Finding:
    module, purpose, command = OPTIONAL[distribution]
    found = _version(distribution) or ("present" if _has(module) else None)
    return Finding(distribution, True if found else None, found or f"absent ({purpose})", "" if found else command)
