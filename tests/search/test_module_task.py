"""A search of a user's module: its data in every form, its loss and metric, a whole sweep on a device that is a formula."""

import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from mpcompile.compiler.passes.base import apply_all
from mpcompile.compiler.passes.to_layers import TO_LAYERS
from mpcompile.errors import ModelError, UsageError
from mpcompile.frontend import load
from mpcompile.ir.bits import BitPair
from mpcompile.reference.run import run
from mpcompile.search import config as configs
from mpcompile.search.run import Sweep
from mpcompile.search.trace.found import result_of
from mpcompile.search.trace.from_file import problem_of
from mpcompile.search.trace.samples import samples_of
from mpcompile.search.trace.task import ModuleTask, Problem
from tests.search.modules import MLP
from tests.search.simulated_sweep import SimulatedDevice

CONFIG = configs.of(
    {
        "search": {"weights": [1, 2, 8], "activations": [1, 2, 8], "epochs": 3, "warmup": 1, "batch": 16},
        "objective": {"targets": ["50 %"]},
        "pretrain": {"epochs": 4, "rate": 0.02},
        "retrain": {"epochs": 3, "rate": 0.01},
        "baselines": {"uniform": ["w8a8"]},
    },
    "test",
)


def data(count: int = 96, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Five classes, each along an axis of its own."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 5
    x = 0.4 * torch.randn(count, 20, generator=draw)
    x[torch.arange(count), 3 * labels] += 2
    return x, labels


def mlp(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MLP()


def problem(**changes) -> Problem:
    return Problem(**({"model": mlp(), "train": data(), "val": data(40, 1)} | changes))


# -- data ----------------------------------------------------------------------------------------------------------------
class Jittered(Dataset):
    """Draws from every source of chance that there is."""

    def __len__(self):
        return 12

    def __getitem__(self, i):
        chance = torch.rand(()) + random.random() + np.random.rand()
        return torch.full((3,), float(i)) + chance, i


def test_samples_come_in_any_form_as_the_same():
    x, y = data(10)
    forms = {
        "tensors": (x, y),
        "arrays": [x.numpy(), y.numpy()],
        "data set": [(x[i], int(y[i])) for i in range(10)],
        "loader": DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=4, shuffle=True),
        "loader of a list": DataLoader([(x[i], int(y[i])) for i in range(10)], batch_size=3),
        "its own batches": DataLoader(
            list(range(10)), collate_fn=lambda some: (torch.stack([x[i] for i in some]), y[some])
        ),
    }
    index = torch.tensor([7, 0, 3])
    for name, given in forms.items():
        samples = samples_of(given, name)
        inputs, targets = samples.batch(index, 0, torch.Generator().manual_seed(0))
        assert len(samples) == 10 and torch.equal(inputs, x[index]) and torch.equal(targets, y[index]), name
        assert torch.equal(torch.cat([part for part, _ in samples.in_order(4)]), x), name
        assert len(torch.cat([part for part, _ in samples.in_order(4, 5)])) == 5


def test_a_data_sets_chance_is_the_searchs_and_nobody_elses():
    samples, before = samples_of(Jittered(), "train"), (torch.get_rng_state(), random.getstate())
    index, seeds = torch.tensor([1, 2]), [torch.Generator().manual_seed(s) for s in (3, 3, 4)]
    one, same, other = (samples.batch(index, 0, seed)[0] for seed in seeds)
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert torch.equal(before[0], torch.get_rng_state()) and before[1] == random.getstate()
    assert samples.fingerprint() == samples_of(Jittered(), "other").fingerprint()


def test_parts_are_disjoint_and_whole():
    first, second = samples_of(Jittered(), "train").split(0.25, seed=5)
    draw = torch.Generator().manual_seed(0)
    numbers = [part.batch(torch.arange(len(part)), 0, draw)[1].tolist() for part in (first, second)]
    assert len(second) == 3 and sorted(numbers[0] + numbers[1]) == list(range(12))
    again, _ = samples_of(Jittered(), "train").split(0.25, seed=6)
    assert again.batch(torch.arange(9), 0, draw)[1].tolist() != numbers[0]
    inner, _ = first.split(0.5, seed=1)
    assert set(inner.batch(torch.arange(len(inner)), 0, draw)[1].tolist()) <= set(numbers[0])


class Stream(IterableDataset):
    def __iter__(self):
        return iter([])


@pytest.mark.parametrize(
    "given, said",
    [
        (3, "train is a int"),
        (Stream(), "train is a Stream"),
        (DataLoader(Stream()), "train is a Stream"),
        ((torch.zeros(3, 2), torch.zeros(4)), "train has 3 inputs and 4 targets"),
        ((torch.zeros(1, 2), torch.zeros(1)), "train has 1 samples"),
        ([torch.zeros(2)] * 3, "gives batches of a Tensor"),
        ((torch.zeros(4, 20, dtype=torch.float64), torch.zeros(4)), r"train gives inputs torch.float64 \[4, 20\]"),
    ],
)
def test_data_that_cannot_be_taken_are_one_line(given, said):
    with pytest.raises(UsageError, match=said):
        ModuleTask(problem(train=given), CONFIG)


# -- loss, metric, teacher -------------------------------------------------------------------------------------------------
def test_every_part_of_the_problem_counts_for_what_is_kept():
    prints = [ModuleTask(p, CONFIG).fingerprint for p in (problem(), problem())]
    assert prints[0] == prints[1]
    others = [
        problem(model=mlp(1)),
        problem(train=data(seed=3)),
        problem(val=data(40, 4)),
        problem(teacher=mlp(2)),
        problem(keep={"3": 4}),
        problem(metric=lambda outputs, targets: 0.5),
    ]
    found = [ModuleTask(p, CONFIG).fingerprint for p in others]
    assert len({prints[0], *found}) == 1 + len(others)


def test_loss_and_metric_are_the_users():
    squared = lambda outputs, targets: (outputs.mean(1) - targets).square().mean()
    metric = lambda outputs, targets: -float(squared(outputs, targets))
    task = ModuleTask(problem(loss=squared, metric=metric), CONFIG)
    x, y = data(40, 1)
    network = task.network()
    network.eval()
    with torch.no_grad():
        outputs = network(x)
        assert task.score(network) == pytest.approx(metric(outputs, y), rel=1e-5)
        assert float(task.loss(outputs, y, x)) == pytest.approx(float(squared(outputs, y)))
    assert task.score_file(lambda inputs: [inputs[:, :5]]) == pytest.approx(metric(x[:, :5], y), rel=1e-5)
    with pytest.raises(UsageError, match="needs a metric"):
        ModuleTask(problem(loss=squared), CONFIG)
    with pytest.raises(UsageError, match=r"loss cannot be taken: IndexError: Target 5 is out of bounds"):
        ModuleTask(problem(), CONFIG).loss(outputs[:1], torch.tensor([5]), x)
    with pytest.raises(
        UsageError, match=r"metric cannot be taken: ZeroDivisionError.* \(test_module_task.py, line \d+"
    ):
        ModuleTask(problem(metric=lambda *_: 1 / 0), CONFIG).score(network)
    with pytest.raises(UsageError, match="metric is nan"):
        ModuleTask(problem(metric=lambda *_: float("nan")), CONFIG).score(network)


class Detector(nn.Module):
    """Two heads in a dict, as detectors have them."""

    def __init__(self):
        super().__init__()
        self.body, self.boxes, self.classes = nn.Linear(20, 16), nn.Linear(16, 4), nn.Linear(16, 5)

    def forward(self, x):
        x = torch.relu(self.body(x))
        return {"boxes": self.boxes(x), "classes": self.classes(x)}


def test_outputs_and_targets_keep_their_structure(tmp_path):
    (x, y), names = data(20), [f"image {i}" for i in range(20)]
    pairs = [(x[i], {"box": x[i, :4], "label": int(y[i]), "name": names[i]}) for i in range(20)]

    def loss(outputs, targets):
        boxes = (outputs["boxes"] - targets["box"]).square().mean()
        return boxes + nn.functional.cross_entropy(outputs["classes"], targets["label"])

    def metric(outputs, targets):
        assert outputs["boxes"].shape == (20, 4) and targets["name"] == names
        return 1 - loss(outputs, targets)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        task = ModuleTask(Problem(Detector(), pairs, pairs, loss=loss, metric=metric), CONFIG)
    network = task.network()
    network.assign(network.uniform(8, 8))
    task.export(network, tmp_path / "m.onnx")
    graph = apply_all(load(tmp_path / "m.onnx"), TO_LAYERS)
    assert graph.outputs == ["output", "output1"]

    def answer(inputs):
        found = [run(graph, {"input": sample}) for sample in inputs]
        return [np.stack([f[name].reshape(-1) for f in found]) for name in graph.outputs]

    assert task.score_file(answer) == pytest.approx(task.score(network), rel=1e-3)


def test_a_teacher_is_learned_from():
    teacher, (x, y) = mlp(7).eval(), data()
    task = ModuleTask(problem(teacher=teacher), CONFIG)
    with torch.no_grad():
        taught = teacher(x)
        plain = nn.functional.cross_entropy(taught, y)
        assert float(task.loss(taught, y, x)) == pytest.approx(float(plain), rel=1e-5)  # it says what it was taught
        assert float(task.loss(-taught, y, x)) > float(nn.functional.cross_entropy(-taught, y)) + 0.01
    with pytest.raises(UsageError, match="same shape"):
        ModuleTask(problem(teacher=nn.Linear(20, 3)), CONFIG).loss(taught, y, x)


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"model": "resnet18"}, "a torch.nn.Module is searched, not a str"),
        ({"example": torch.zeros(1, 19)}, r"example is \[1, 19\], where train has samples of \[20\]"),
        ({"val": data(40)[:1] * 2}, "outputs are no logits"),
        ({"keep": {"*": 8}}, "nothing is left to search"),
        ({"model": nn.Sequential(nn.Linear(20, 9), nn.Linear(9, 5))}, "nothing is left to search"),
    ],
)
def test_what_does_not_fit_is_one_line(changes, said):
    with pytest.raises(UsageError, match=said):
        task = ModuleTask(problem(**changes), CONFIG)
        task.score(task.network())


# -- a whole sweep ---------------------------------------------------------------------------------------------------------
def sweep(out, show=lambda *_: None):
    task = ModuleTask(problem(keep={"0": 8}), CONFIG)
    out.mkdir(exist_ok=True)
    return Sweep(CONFIG, out, SimulatedDevice(out / "device.log"), show, keep_seconds=0.0, task=task), task


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    out = tmp_path_factory.mktemp("module")
    made, task = sweep(out)
    return out, made.run(), task


def test_every_point_is_there(done):
    out, result, task = done
    found = result_of(result, task)
    assert list(found.networks) == ["uniform-w8a8", "target-50pc"] and found.best.name == "target-50pc"
    assert found.networks["uniform-w8a8"].accuracy > 0.8
    assert found.best.bits["0"] == (8, 8) and found.best.bits.keys() == {"0", "3", "5"}
    assert set(found.networks["uniform-w8a8"].bits.values()) == {BitPair(8, 8)}
    assert found.best.bundle == out / "points" / "target-50pc" / "model.mpc" and found.best.bundle.exists()
    assert found.best.seconds is not None and not found.floats


def test_the_module_that_comes_out_is_what_was_scored(done):
    _, result, task = done
    x, y = data(40, 1)
    for network in result_of(result, task).networks.values():
        with torch.no_grad():
            right = (network.model(x).argmax(1) == y).float().mean()
        assert float(right) == pytest.approx(network.accuracy) and type(network.model) is MLP


def test_an_interrupted_search_goes_on_to_the_same_end(done, tmp_path):
    class Stop(Exception):
        pass

    for place in (("train float", 7), ("search target-50pc", 5), ("train target-50pc", 9)):

        def show(what, done, total, figures, place=place):
            if (what, done) == place:
                raise Stop

        with pytest.raises(Stop):
            sweep(tmp_path / "run", show)[0].run()
    found = sweep(tmp_path / "run")[0].run()
    assert found.to_json() == done[1].to_json()


# -- module = --------------------------------------------------------------------------------------------------------------
FILE = """
import torch
from tests.search.test_module_task import data, mlp

def task():
    return mlp(), data(), data(40, 1)

def named():
    return {"model": mlp(), "train": data(), "val": data(40, 1), "keep": {"0": 8}}

def strange():
    return {"model": mlp(), "train": data(), "valid": data()}

def lacking():
    return {"model": mlp(), "train": data()}

def nothing():
    return None

def broken():
    raise KeyError("no such weights")
"""


def test_a_function_of_a_file_says_what_is_searched(tmp_path):
    (tmp_path / "nets_of_a_test.py").write_text(FILE)
    found = problem_of("nets_of_a_test:task", tmp_path)
    assert isinstance(found.model, MLP) and found.keep is None and problem_of("nets_of_a_test:named", tmp_path).keep
    for name, said in {
        "nets_of_a_test": 'like "nets:task"',
        "no_such_file:task": "no_such_file",
        "nets_of_a_test:other": "has no attribute 'other'",
        "nets_of_a_test:strange": "a dict with valid",
        "nets_of_a_test:lacking": "a dict without val",
        "nets_of_a_test:nothing": "returns a NoneType",
        "nets_of_a_test:broken": r"KeyError: .*no such weights.* \(nets_of_a_test.py, line \d+: raise KeyError",
    }.items():
        with pytest.raises(ModelError, match=said):
            problem_of(name, tmp_path)


def test_a_configuration_names_a_module_or_data():
    assert configs.of({"module": "nets:task", "objective": {"targets": ["w2a2"]}}, "x").module == "nets:task"
    with pytest.raises(ModelError, match="data.path must be left out beside module"):
        configs.of({"module": "a:b", "data": {"path": "x"}, "objective": {"targets": ["w2a2"]}}, "x")


def test_a_configuration_is_a_file_again(tmp_path):
    (tmp_path / "c.toml").write_text(configs.as_toml(CONFIG))
    assert configs.read(tmp_path / "c.toml") == CONFIG
