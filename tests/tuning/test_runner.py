"""Built kernels timed over a pool: a kernel that ends its device fails alone, and devices of different speeds agree."""

import subprocess
from dataclasses import replace

import pytest

import mpcompile as mp
from benchmarks.networks import Bits, ConvShape, conv_layer
from mpcompile.api.tune import this_machine
from mpcompile.errors import TargetError
from mpcompile.latency.measure import Measurement, Timing
from mpcompile.remote.pool import Pool
from mpcompile.runtime.device import About
from mpcompile.runtime.server.limits import Limits
from mpcompile.targets import load_target
from mpcompile.tuning import runner as module
from mpcompile.tuning.runner import BASE, Failed, PoolRunner, Timed
from mpcompile.tuning.task import LocalBuilder, tasks_of

BAD = {
    "crash": "*(volatile int *)0 = 1;",
    "eat": "for (;;) { volatile char *p = malloc(1 << 26); for (int i = 0; i < 1 << 26; i += 4096) p[i] = 1; }",
    "hang": "for (volatile int i = 0;; i++);",
}


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "m.onnx"
    conv_layer(ConvShape(32, 6, 32), Bits(1, 1)).save(path)
    return next(t for t in tasks_of(mp.load(path), load_target("x86-64-v2"), 1) if "conv" in t.layers)


def library(folder, what: str) -> bytes:
    """A library whose kernel does `what` instead of its work."""
    source, built = folder / f"{what}.c", folder / f"{what}.so"
    source.write_text(
        "#include <stdlib.h>\n"
        f"int __tvm_ffi_layer(void *self, void *args, int n, void *result) {{ {BAD[what]} return 0; }}\n"
    )
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", source, "-o", built], check=True)
    return built.read_bytes()


def test_what_crashes_eats_memory_or_never_ends_fails_alone(task, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LEAST_LIMIT", 60.0)
    builder = LocalBuilder(task.target, 1)
    base = task.kernel(builder.build([task.default])[0])
    builder.close()
    bad = {what: task.kernel(library(tmp_path, what)) for what in BAD}
    found = {}
    with this_machine(Limits(memory=1 << 30)) as pool:
        runner = PoolRunner(pool, 1, elsewhere=False)
        done = lambda outcomes, measurement: found.update(outcomes)
        runner.time(base, {"good": base, "crash": bad["crash"], "eat": bad["eat"]}, 1, done)
        monkeypatch.setattr(module, "LEAST_LIMIT", 5.0)
        runner.time(base, {"hang": bad["hang"]}, 1, done)
        monkeypatch.setattr(module, "LEAST_LIMIT", 60.0)
        runner.time(base, {"after": base}, 1, done)
    assert all(isinstance(found[name], Timed) for name in (BASE, "good", "after"))
    for name, says in {"crash": "SIGSEGV", "eat": "MiB of memory", "hang": "ran longer than"}.items():
        assert isinstance(found[name], Failed) and says in found[name].why and "\n" not in found[name].why


class Fixed:
    """A device on which a kernel takes as many µs as its library says, times `factor`."""

    def __init__(self, name: str, factor: float = 1.0):
        self.name, self.factor = name, factor
        self.about = replace(About.here(), cpu="simulated", l2=0)
        self.times: list[set[str]] = []

    def reference(self):
        return 1e-5 * self.factor

    def close(self):
        pass

    def time_kernels(self, kernels, threads, *, stirred, rounds, min_time, progress=None):
        if any(k.library == b"error" for k in kernels.values()):
            raise RuntimeError("no such\nfunction")
        self.times.append(set(kernels))
        found = {
            name: Timing(name, s := int(k.library) * 1e-6 * self.factor, s, s, rounds) for name, k in kernels.items()
        }
        return Measurement(found, self.reference(), self.reference(), rounds, 0.05)


def test_shares_of_devices_of_different_speeds_agree(task):
    devices = [Fixed("fast"), Fixed("slow", 1.2)]
    kernels = {str(i): task.kernel(b"%d" % (100 + i)) for i in range(9)}
    found = {}
    with Pool(devices) as pool:
        PoolRunner(pool, 1, elsewhere=True).time(task.kernel(b"100"), kernels, 3, lambda some, _: found.update(some))
    assert {n: round(t.cost, 6) for n, t in found.items()} == {BASE: 1} | {str(i): 1 + i / 100 for i in range(9)}
    assert all(BASE in share for d in devices for share in d.times) and sum(len(d.times) for d in devices) == 2
    with Pool(devices) as pool:
        PoolRunner(pool, 1, elsewhere=True).time(task.kernel(b"100"), kernels, 3, lambda *_: None, together=True)
    assert max(len(share) for d in devices for share in d.times) == 10


def test_an_error_is_the_kernels_that_raises_it(task):
    kernels = {name: task.kernel(code) for name, code in {"a": b"90", "b": b"error", "c": b"80"}.items()}
    found = {}
    with Pool([Fixed("one")]) as pool:
        runner = PoolRunner(pool, 1, elsewhere=False)
        runner.time(task.kernel(b"100"), kernels, 3, lambda some, _: found.update(some))
        assert found["b"] == Failed("one: no such function") and {found["a"].cost, found["c"].cost} == {0.9, 0.8}
        with pytest.raises(TargetError, match="the default schedule cannot be measured: .*no such"):
            runner.time(task.kernel(b"error"), kernels, 3, lambda *_: None)
