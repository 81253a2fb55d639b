"""The executor and an open bundle over functions of numpy: two inputs, two outputs, three calls of two layers."""

import threading
from pathlib import Path

import numpy as np
import pytest

from mpcompile.errors import ModelError, TargetError, UsageError
from mpcompile.ir.formats import Buffer
from mpcompile.ir.plan import Arg, Call, Placed, Plan, Port
from mpcompile.latency import measure as measurer
from mpcompile.runtime import archive, bundle, executor, open_bundle, variants
from mpcompile.runtime.driver import DRIVERS
from mpcompile.runtime.memory import CpuMemory
from tests.runtime.small_bundle import small_target, small_variant, write_small

A, B, SUM, DIFFERENCE = (
    Arg("input", 0, "float32", (2, 3)),
    Arg("input", 1, "float32", (3,)),
    Arg("output", 0, "float32", (2, 3)),
    Arg("output", 1, "float32", (3, 2)),
)
DOUBLE, BIAS = Arg("workspace", 64, "float32", (2, 3)), Arg("weights", 64, "float32", (3,))
PLAN = Plan(
    (Port("a", (2, 3)), Port("b", (3,))),
    (Port("sum", (2, 3)), Port("turned", (3, 2))),
    (
        Call("double", "one", (A, BIAS, DOUBLE)),
        Call("add", "two", (DOUBLE, B, SUM)),
        Call("turn", "one", (DOUBLE, DIFFERENCE)),
    ),
    (
        Placed(Buffer("a", "plain", (2, 3)), A, -1, 0),
        Placed(Buffer("b", "plain", (3,)), B, -1, 1),
        Placed(Buffer("double", "plain", (2, 3)), DOUBLE, 0, 2),
        Placed(Buffer("sum", "plain", (2, 3)), SUM, 1, 2),
        Placed(Buffer("turned", "plain", (3, 2)), DIFFERENCE, 2, 2),
    ),
    128,
    24,
)
WEIGHTS = np.array([1, 2, 4], np.float32)


MEMORY = CpuMemory()


def held(made: executor.Executor, arg: Arg) -> np.ndarray:
    """A copy of what an argument's memory holds."""
    return MEMORY.get(made.view(arg))


class Library:
    """Functions by name; `loaded` and `called` say which."""

    def __init__(self):
        self.loaded: list[str] = []
        self.called: list[str] = []

    def double(self, a, bias, out):
        out[:] = 2 * a + bias

    def add(self, x, b, out):
        out[:] = x + b

    def turn(self, x, out):
        out[:] = x.T

    def __call__(self, name):
        self.loaded.append(name)

        def function(*args):
            self.called.append(name)
            getattr(self, name)(*map(np.from_dlpack, args))

        return function


@pytest.fixture
def library():
    return Library()


@pytest.fixture
def opened(library):
    weights = MEMORY.alloc(76)
    weights[:64], weights[64:] = 0, WEIGHTS.view(np.uint8)
    described = variants.Variant("v", "cpu", "", (), {}, PLAN, [{"name": "one"}], "v.so", ("v.weights",))
    return bundle.Bundle(
        Path("by/hand.mpc"), {}, described, executor.Executor(DRIVERS.of("cpu"), MEMORY, library, PLAN, weights, 1)
    )


def inputs(*batch):
    rng = np.random.default_rng(0)
    return {"a": rng.standard_normal((*batch, 2, 3), np.float32), "b": rng.standard_normal((*batch, 3), np.float32)}


def expected(a, b):
    return {"sum": 2 * a + WEIGHTS + b, "turned": (2 * a + WEIGHTS).T}


def test_several_inputs_and_outputs_go_by_their_names(opened, library):
    x = inputs()
    found = opened.run(dict(reversed(x.items())))
    assert list(found) == ["sum", "turned"]
    for name, value in expected(**x).items():
        np.testing.assert_array_equal(found[name], value)
        assert found[name].dtype == np.float32
    assert library.called == ["double", "add", "turn"]
    assert [p.name for p in opened.inputs] == ["a", "b"] and [p.name for p in opened.outputs] == ["sum", "turned"]
    assert opened.layers == [{"name": "one"}]


@pytest.mark.parametrize("batch", [0, 1, 3])
def test_a_batch_is_run_sample_by_sample(opened, library, batch):
    x = inputs(batch)
    found = opened.run(x)
    assert found["sum"].shape == (batch, 2, 3) and found["turned"].shape == (batch, 3, 2)
    for n in range(batch):
        for name, value in expected(x["a"][n], x["b"][n]).items():
            np.testing.assert_array_equal(found[name][n], value)
    assert library.called == ["double", "add", "turn"] * batch


def test_what_a_run_gave_is_kept_when_it_is_run_again(opened):
    first, second = opened.run(inputs()), opened.run({k: v + 1 for k, v in inputs().items()})
    assert not np.array_equal(first["sum"], second["sum"])
    np.testing.assert_array_equal(first["sum"], expected(**inputs())["sum"])


@pytest.mark.parametrize(
    "x, says",
    [
        (np.zeros((2, 3)), "the model has 2 inputs: pass a dict with a, b"),
        ({"a": np.zeros((2, 3))}, "the model's inputs are a, b; what was given lacks b"),
        ({**inputs(), "c": 1, "d": 2}, "the model's inputs are a, b; what was given has c, d"),
        ({**inputs(2), "b": inputs(3)["b"]}, r"the inputs have different batch sizes \(a: 2, b: 3\)"),
        ({**inputs(2), "b": inputs()["b"]}, r"the inputs have different batch sizes \(a: 2, b: none\)"),
        ({**inputs(), "b": np.zeros(4)}, r"input b must be \(3,\) or \(N, 3\), got \(4,\)"),
        ({**inputs(), "b": np.zeros((1, 1, 3))}, r"input b must be \(3,\) or \(N, 3\), got \(1, 1, 3\)"),
        ({**inputs(), "b": np.zeros((3, 2))}, r"input b must be \(3,\) or \(N, 3\), got \(3, 2\)"),
        ({**inputs(), "b": np.zeros(3, np.complex128)}, "input b must hold real numbers, got dtype complex128"),
    ],
)
def test_what_does_not_fit_is_named(opened, library, x, says):
    with pytest.raises(UsageError, match=says + "$"):
        opened.run(x)
    assert not library.called


def test_one_input_needs_no_name():
    x = np.zeros((2, 3), np.float32)
    one = Plan((Port("a", (2, 3)),), (), (), (), 0, 0)
    for given in (x, {"a": x}):
        (found,) = executor.named_inputs(one, given)
        np.testing.assert_array_equal(found, x)
    with pytest.raises(UsageError, match="the model has 0 inputs"):
        executor.named_inputs(Plan((), (), (), (), 0, 0), x)
    with pytest.raises(UsageError, match="input a must hold real numbers, got dtype <U1"):
        executor.named_inputs(one, "x")


@pytest.mark.parametrize("dtype", [np.float64, np.int8, np.uint16, np.bool_])
def test_numbers_of_other_types_are_converted(opened, dtype):
    x = {k: np.ones(v.shape, dtype) for k, v in inputs().items()}
    np.testing.assert_array_equal(opened.run(x)["sum"], 2 + WEIGHTS + np.ones((2, 3)))


def test_a_function_is_looked_up_once(library):
    plan = Plan(PLAN.inputs, PLAN.outputs, (*PLAN.calls, PLAN.calls[0]), PLAN.buffers, 128, 24)
    executor.Executor(DRIVERS.of("cpu"), MEMORY, library, plan, MEMORY.alloc(76), 1)
    assert library.loaded == ["double", "add", "turn"]


def test_the_workspace_is_zero_before_anything_is_run(library):
    """A buffer's margin may be one that no call writes."""
    MEMORY.alloc(128)[:] = 255
    made = executor.Executor(DRIVERS.of("cpu"), MEMORY, library, PLAN, MEMORY.alloc(76), 1)
    assert not held(made, DOUBLE).any()


@pytest.mark.parametrize("batch", [(), (1,)])
def test_a_trace_is_of_one_sample_and_has_what_each_call_left(opened, batch):
    trace = opened.run_traced(inputs(*batch))
    x = {k: v.reshape(p.shape) for (k, v), p in zip(inputs(*batch).items(), PLAN.inputs)}
    wanted = {**x, "double": 2 * x["a"] + WEIGHTS, **expected(**x)}
    assert set(trace) == set(wanted)
    for name, value in wanted.items():
        np.testing.assert_array_equal(trace[name][f"{name}:plain"], value)
    opened.run({k: v + 1 for k, v in x.items()})
    np.testing.assert_array_equal(trace["double"]["double:plain"], wanted["double"])


@pytest.mark.parametrize("batch", [0, 2])
def test_several_samples_are_not_traced(opened, batch):
    with pytest.raises(UsageError, match="run_traced takes one sample"):
        opened.run_traced(inputs(batch))


def test_a_timer_runs_the_calls_that_it_is_of_as_often_as_it_is_told(opened, library):
    timer = opened.timer(inputs(1))
    assert not library.called and 0 < timer.seconds(3) < 60
    assert library.called == ["double", "add", "turn"] * 3
    np.testing.assert_array_equal(held(opened._live(), SUM), expected(**{k: v[0] for k, v in inputs(1).items()})["sum"])


def test_a_layers_timer_is_of_all_its_calls_after_a_run_of_all(opened, library):
    timers = opened.layer_timers()
    assert list(timers) == ["one", "two"] and library.called == ["double", "add", "turn"]
    library.called.clear()
    timers["one"].seconds(2)
    timers["two"].seconds(1)
    assert library.called == ["double", "turn", "double", "turn", "add"]


def test_a_timer_without_an_input_takes_the_same_normal_numbers_each_time(opened):
    opened.timer()
    first = held(opened._live(), A)
    opened.timer(inputs())
    opened.timer()
    np.testing.assert_array_equal(held(opened._live(), A), first)
    assert len(np.unique(first)) == first.size


@pytest.mark.parametrize("batch", [0, 2])
def test_one_sample_is_timed(opened, batch):
    with pytest.raises(UsageError, match=rf"input a must be one sample of \(2, 3\), got \({batch}, 2, 3\)$"):
        opened.timer(inputs(batch))


def test_the_seconds_that_a_measurement_is_given_are_all_that_it_takes(opened, monkeypatch):
    asked = []

    def measure(timers, *, rounds, min_time):
        asked.append(rounds * min_time * len(timers))
        return real(timers, rounds=1, min_time=0.0)

    real = measurer.measure
    monkeypatch.setattr(measurer, "measure", measure)
    assert opened.bench(seconds=2.0).seconds > 0
    assert list(opened.profile(seconds=3.0)) == ["one", "two"]
    opened.bench()
    opened.profile()
    assert asked == [pytest.approx(s) for s in (2.0, 3.0, 1.0, 1.0)]


def test_a_network_without_calls_has_no_profile(library):
    empty = Plan((), (), (), (), 0, 0)
    described = variants.Variant("v", "cpu", "", (), {}, empty, [], "v.so", ())
    made = executor.Executor(DRIVERS.of("cpu"), MEMORY, library, empty, MEMORY.alloc(0), 1)
    assert bundle.Bundle(Path("m.mpc"), {}, described, made).profile() == {}


def test_a_closed_bundle_has_no_threads_and_does_nothing(opened):
    assert opened.threads == 1
    with opened as same:
        assert same is opened
    assert opened.threads == 0
    for ask in (opened.run, opened.run_traced, opened.timer, opened.layer_timers):
        with pytest.raises(UsageError, match="^by/hand.mpc was closed$"):
            ask(inputs())


def test_one_run_at_a_time(opened, library):
    """The second waits until the first, which is in the middle of its calls, has ended."""
    inside, go_on = threading.Event(), threading.Event()

    def add(x, b, out):
        inside.set()
        assert go_on.wait(60)
        out[:] = x + b

    library.add = add
    x, found = inputs(), []
    first = threading.Thread(target=lambda: found.append(opened.run(x)))
    first.start()
    assert inside.wait(60)
    second = threading.Thread(target=lambda: opened.run({k: v + 1 for k, v in x.items()}))
    second.start()
    second.join(0.1)
    assert second.is_alive() and library.called == ["double", "add"]
    go_on.set()
    first.join(60)
    second.join(60)
    np.testing.assert_array_equal(found[0]["sum"], expected(**x)["sum"])


# -- a plan and its memory ---------------------------------------------------------------------------------------------
@pytest.fixture
def memory(library):
    return executor.Executor(DRIVERS.of("cpu"), MEMORY, library, PLAN, MEMORY.alloc(76), 1)


@pytest.mark.parametrize(
    "arg",
    [
        Arg("workspace", 64, "float32", (16,)),
        Arg("workspace", 64, "int8", (8, 8)),
        Arg("workspace", 128, "int8", (0,)),
        Arg("workspace", 0, "uint64", ()),
        Arg("weights", 64, "uint8", (12,)),
        Arg("output", 1, "float32", (6,)),
    ],
)
def test_what_fits_to_the_last_byte_is_a_view_of_it(memory, arg):
    view = held(memory, arg)
    assert view.shape == arg.shape and view.dtype == arg.dtype
    MEMORY.put(memory.view(arg), 7)
    assert (held(memory, arg) == 7).all()


@pytest.mark.parametrize(
    "arg, says",
    [
        (
            Arg("workspace", 64, "float32", (17,)),
            r"the plan puts float32 \(17,\) at byte 64 of the workspace, 128 bytes",
        ),
        (Arg("workspace", 64, "int8", (65,)), "at byte 64 of the workspace"),
        (Arg("workspace", 32, "int8", (1,)), "at byte 32 of the workspace"),
        (Arg("workspace", -64, "int8", (1,)), "at byte -64 of the workspace"),
        (Arg("workspace", 0, "int8", (-1, -2)), r"int8 \(-1, -2\) at byte 0"),
        (Arg("workspace", 0, "int8", (-1, -1)), r"int8 \(-1, -1\) at byte 0"),
        (Arg("weights", 64, "uint8", (13,)), "at byte 64 of the weights, 76 bytes"),
        (Arg("input", 2, "float32", (3,)), "the plan names input 2, and there are 2"),
        (Arg("input", -1, "float32", (3,)), "the plan names input -1, and there are 2"),
        (Arg("output", 0, "float32", (5,)), r"the plan uses output 0 \(2, 3\) as float32 \(5,\)"),
        (Arg("output", 0, "int32", (6,)), r"the plan uses output 0 \(2, 3\) as int32 \(6,\)"),
        (Arg("cellar", 0, "int8", (1,)), "the plan names a space 'cellar'"),
        (Arg("workspace", 0, "int9", (1,)), "the plan names a dtype 'int9'"),
    ],
)
def test_what_leaves_its_block_is_refused(memory, arg, says):
    with pytest.raises(ModelError, match=says):
        held(memory, arg)


# -- versions of TVM ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("built, fits", [("3.4.9", True), ("3.4", True), ("3.5.1", False), ("2.4.1", False)])
def test_code_of_another_minor_version_is_not_loaded(tmp_path, monkeypatch, built, fits):
    monkeypatch.setattr(archive, "tvm_version", lambda: built)
    path = write_small(tmp_path / "m.mpc", small_variant(b"no code", target=small_target(features=[])))
    monkeypatch.setattr(bundle, "tvm_version", lambda: "3.4.1")
    if fits:
        with pytest.raises(TargetError, match="does not load the bundle's library"):
            open_bundle(path)
    else:
        with pytest.raises(TargetError) as error:
            open_bundle(path)
        assert str(error.value) == (
            f"{path} was built with TVM {built}, this machine has 3.4.1: compile the model again, or "
            f"pip install apache-tvm=={built}"
        )
    monkeypatch.setattr(bundle, "tvm_version", lambda: "")  # a runtime library alone: nothing says which
    with pytest.raises(TargetError, match="does not load the bundle's library"):
        open_bundle(path)
