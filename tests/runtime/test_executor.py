"""The executor against numpy, on the small bundle."""

import threading

import numpy as np
import pytest

from mpcompile.errors import UsageError
from mpcompile.runtime import open_bundle
from mpcompile.targets import cpu
from tests.runtime.small_bundle import BIAS, SHAPE


def expected(x):
    return (x * 2 + BIAS[:, None, None]) ** 2


@pytest.fixture
def x():
    return np.random.default_rng(1).standard_normal(SHAPE, np.float32)


def test_runs_one_sample_and_batches(bundle_path, x):
    with open_bundle(bundle_path, threads=1) as bundle:
        np.testing.assert_array_equal(bundle.run(x), expected(x))
        several = np.stack([x, -x, x + 1])
        np.testing.assert_array_equal(bundle.run(several), np.stack([expected(v) for v in several]))
        assert bundle.run(several[:0]).shape == (0, *SHAPE)
        np.testing.assert_array_equal(bundle.run({"x": x}), expected(x))


def test_takes_integers_and_views(bundle_path):
    whole = np.arange(np.prod(SHAPE)).reshape(SHAPE) % 7
    with open_bundle(bundle_path, threads=1) as bundle:
        np.testing.assert_array_equal(bundle.run(whole), expected(whole.astype(np.float32)))
        turned = np.asfortranarray(whole.astype(np.float32))
        np.testing.assert_array_equal(bundle.run(turned), expected(turned))


def test_results_are_the_callers_own(bundle_path, x):
    with open_bundle(bundle_path, threads=1) as bundle:
        first = bundle.run(x)
        kept = first.copy()
        bundle.run(x + 1)
        np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize(
    "bad, told",
    [
        (np.zeros((4, 8, 9), np.float32), r"input x must be \(4, 8, 8\) or \(N, 4, 8, 8\), got \(4, 8, 9\)"),
        (np.zeros((2, 2, 4, 8, 8), np.float32), r"got \(2, 2, 4, 8, 8\)"),
        (np.zeros(SHAPE, np.complex64), "input x must hold real numbers, got dtype complex64"),
        (np.full(SHAPE, "a"), "input x must hold real numbers"),
        ({"y": np.zeros(SHAPE)}, "lacks x"),
        ({"x": np.zeros(SHAPE), "y": np.zeros(SHAPE)}, "has y"),
    ],
)
def test_refuses_inputs_that_do_not_fit(bundle_path, bad, told):
    with open_bundle(bundle_path, threads=1) as bundle, pytest.raises(UsageError, match=told):
        bundle.run(bad)


def test_trace_holds_every_buffer(bundle_path, x):
    with open_bundle(bundle_path, threads=1) as bundle:
        trace = bundle.run_traced(x)
    y = x * 2 + BIAS[:, None, None]
    np.testing.assert_array_equal(trace["x"]["x:plain"], x)
    np.testing.assert_array_equal(trace["y"]["y:plain"], y)
    np.testing.assert_array_equal(trace["z"]["z:plain"], y * y)


def test_a_closed_bundle_says_so(bundle_path, x):
    bundle = open_bundle(bundle_path, threads=1)
    bundle.close()
    with pytest.raises(UsageError, match="was closed"):
        bundle.run(x)


def test_other_threads_may_run_it(bundle_path, x):
    wrong = []
    with open_bundle(bundle_path) as bundle:

        def work(shift):
            for _ in range(20):
                if not np.array_equal(bundle.run(x + shift), expected(x + np.float32(shift))):
                    wrong.append(shift)

        workers = [threading.Thread(target=work, args=(i,)) for i in range(3)]
        [w.start() for w in workers]
        [w.join() for w in workers]
    assert not wrong


def test_bench_and_profile(bundle_path, x):
    with open_bundle(bundle_path, threads=1) as bundle:
        timing = bundle.bench(seconds=0.05, x=x)
        assert 0 < timing.low <= timing.seconds <= timing.high < 1e-3
        rows = bundle.profile(seconds=0.05)
        assert list(rows) == ["first", "second"]
        assert all(0 < t.seconds < 1e-3 for t in rows.values())


@pytest.mark.parametrize("bad", [0, -1, 1.5, True, 10_000])
def test_refuses_thread_counts(bundle_path, bad):
    with pytest.raises(UsageError, match="threads"):
        open_bundle(bundle_path, threads=bad)


def test_default_is_the_physical_cores(bundle_path):
    with open_bundle(bundle_path) as bundle:
        assert bundle.threads == cpu.cores()
