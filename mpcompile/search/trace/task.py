"""A user's module and data as what a search is about."""

from __future__ import annotations

import copy
import hashlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from mpcompile.errors import MpError, UsageError
from mpcompile.latency.fingerprint import fingerprint
from mpcompile.search.config import Config
from mpcompile.search.folder import key_of
from mpcompile.search.layers import Network
from mpcompile.search.loop import cross_entropy
from mpcompile.search.task import Task
from mpcompile.search.trace.export import INPUT, export, to_onnx
from mpcompile.search.trace.network import Knobs, Traced, kept
from mpcompile.search.trace.plan import plan, said_of
from mpcompile.search.trace.samples import UserSamples, samples_of

STARTING, SEEN = 64, 8
"""Samples that clips and zero points are taken from, and signs."""
TOGETHER = 1 << 24
"""Numbers that a device is sent at once, at most, but for a sample that has more."""


@dataclass(frozen=True)
class Problem:
    """What a user gives. `model`: a module; the path of a float ONNX file has become one before a task is made, and so has
    `teacher`'s. `example`: an input as the module takes it, batch in front; left out, one of `train`. `loss`: of
    (outputs, targets), left out cross entropy; `metric`: of all outputs and targets of `val`, larger is better, left out
    the share of right classes. `teacher`: a module whose logits are learned from, too. `keep`: names (with * and ?) of
    layers → their bits."""

    model: Any
    train: Any
    val: Any
    example: Tensor | None = None
    loss: Callable[[Any, Any], Tensor] | None = None
    metric: Callable[[Any, Any], Any] | None = None
    teacher: Any = None
    keep: Mapping[str, int] | None = None


class ModuleTask(Task):
    """Raises UsageError and ModelError at what a Problem cannot be, before anything is trained."""

    input = INPUT
    train: UserSamples

    def __init__(self, problem: Problem, config: Config):
        if not isinstance(problem.model, nn.Module):
            raise UsageError(f"a torch.nn.Module is searched, not a {type(problem.model).__name__}")
        if problem.loss is not None and problem.metric is None:
            raise UsageError(
                "a loss of one's own needs a metric, too, by which networks are compared: larger is better"
            )
        self.problem, self.config = problem, config
        self.model = copy.deepcopy(problem.model).cpu()
        self.train, self.val = samples_of(problem.train, "train"), samples_of(problem.val, "val")
        self.first = self._first()
        self.example = self._example()
        s, n = config.search, config.network
        self.knobs = Knobs(tuple(s.weights), tuple(s.activations), n.weight, n.activation, problem.keep)
        self.planned = plan(self.model, self.example, self.first[:SEEN])
        if len(kept(self.planned, problem.keep)) == len(self.planned.layers):
            raise UsageError(
                "nothing is left to search: keep has bits for all layers; left out, it has the first and the last"
            )
        self.together = max(1, min(512, TOGETHER // max(1, self.example[:1].numel())))
        self.teacher = copy.deepcopy(problem.teacher).cpu().eval() if problem.teacher is not None else None
        self.loss = self._loss
        described = to_onnx(self._float()).SerializeToString(deterministic=True)
        data = [self.train.fingerprint(), self.val.fingerprint()]
        teacher = [_weights(self.teacher)] if self.teacher is not None else []
        functions = [_source(problem.loss), _source(problem.metric)]
        self.data_fingerprint = key_of(data)
        self.fingerprint = key_of(
            hashlib.sha256(described).hexdigest(), _weights(self.model), data, teacher, functions, dict(problem.keep or {}),
            problem.keep is None, fingerprint(__name__),
        )  # fmt: skip
        self.shape = (hashlib.sha256(described).hexdigest(), list(self.example.shape[1:]), dict(problem.keep or {}))

    def network(self, state: dict | None = None) -> Network:
        made = Traced(self.model, self.planned, self.example, self.knobs)
        if state:
            made.load_state_dict(state)
        made.start_clips(self.first)
        return made

    def export(self, network: Network, path: Path) -> None:
        assert isinstance(network, Traced)  # it was made here
        export(network, path)

    # -- scores ------------------------------------------------------------------------------------
    def score(self, network: Network) -> float:
        training = network.training
        network.eval()
        with torch.no_grad():
            found = self._scored(network, self.config.search.batch)
        network.train(training)
        return found

    def score_file(self, answer: Callable[[np.ndarray], Sequence[np.ndarray]]) -> float:
        def outputs(inputs: Tensor) -> Any:
            return pytree.tree_unflatten(
                [torch.from_numpy(np.array(a)) for a in answer(_array(inputs))], self.planned.outputs
            )

        return self._scored(outputs, self.together)

    def inputs(self, count: int, part: str) -> np.ndarray:
        source = self.train if part == "train" else self.val
        return np.concatenate([_array(inputs) for inputs, _ in source.in_order(self.together, count)])

    def about(self) -> dict[str, Any]:
        return {
            "name": type(self.problem.train).__name__,
            "sha256": self.data_fingerprint,
            "train": len(self.train),
            "test": len(self.val),
            "classes": self.planned.classes,
            "image": list(self.example.shape[1:]),
            "floats": dict(self.planned.floats),
        }

    def _scored(self, outputs: Callable[[Tensor], Any], together: int) -> float:
        """`outputs` is given so many inputs at once."""
        found, wanted, sizes = [], [], []
        for inputs, targets in self.val.in_order(together):
            found.append(outputs(inputs))
            wanted.append(targets)
            sizes.append(len(inputs))
        with _blamed("metric"):
            score = float((self.problem.metric or right)(_joined(found, sizes), _joined(wanted, sizes)))
        if not np.isfinite(score):
            raise UsageError(f"metric is {score}, on all of val: it must be a number")
        return score

    # -- losses ------------------------------------------------------------------------------------
    def _loss(self, outputs: Any, targets: Any, inputs: Any) -> Tensor:
        with _blamed("loss"):
            loss = (self.problem.loss or cross_entropy)(outputs, targets)
        if self.teacher is None:
            return loss
        with torch.no_grad():
            taught = self.teacher(inputs)
        if not isinstance(outputs, Tensor) or not isinstance(taught, Tensor) or outputs.shape != taught.shape:
            raise UsageError("teacher must give logits of the same shape as the module's")
        told = nn.functional.log_softmax(outputs, -1), nn.functional.softmax(taught.float(), -1)
        return loss + nn.functional.kl_div(*told, reduction="batchmean")

    # -- how -----------------------------------------------------------------------------------------
    def _first(self) -> Tensor:
        for part in (self.val, self.train):
            inputs, _ = next(part.in_order(STARTING, STARTING))
            if not isinstance(inputs, Tensor) or inputs.dtype != torch.float32 or inputs.dim() < 2:
                what = f"{inputs.dtype} {list(inputs.shape)}" if isinstance(inputs, Tensor) else type(inputs).__name__
                raise UsageError(f"{part.name} gives inputs {what}: one tensor float32 [N, …] would be accepted")
        return inputs

    def _example(self) -> Tensor:
        given = self.problem.example
        if given is None:
            return self.first[:1]
        if not isinstance(given, Tensor) or given.shape[1:] != self.first.shape[1:]:
            shape = list(given.shape) if isinstance(given, Tensor) else type(given).__name__
            raise UsageError(
                f"example is {shape}, where train has samples of {list(self.first.shape[1:])}, a batch in front"
            )
        return given.float()

    def _float(self) -> Traced:
        made = Traced(self.model, self.planned, self.example, self.knobs)
        made.assign(None)
        return made


@contextmanager
def _blamed(what: str) -> Iterator[None]:
    """What a user's function raises is one line that names it."""
    try:
        yield
    except (MpError, MemoryError):
        raise
    except Exception as error:
        raise UsageError(f"{what} cannot be taken: {type(error).__name__}: {said_of(error)}") from error


def right(outputs: Tensor, targets: Tensor) -> float:
    """The share of right classes: logits [N, C], labels [N]."""
    if not isinstance(outputs, Tensor) or outputs.dim() != 2 or targets.shape != outputs.shape[:1]:
        raise UsageError("outputs are no logits [N, classes] for labels [N]: give a loss and a metric of your own")
    return float((outputs.argmax(1) == targets).float().mean())


def _joined(parts: Sequence[Any], sizes: Sequence[int]) -> Any:
    """Batches of these sizes end to end: tensors and lists of what belongs to samples, in the dicts, tuples and lists that
    they are in; what is neither, as a list."""
    if all(isinstance(p, Tensor) and p.dim() for p in parts):
        return torch.cat(list(parts))
    if all(isinstance(p, Mapping) and p.keys() == parts[0].keys() for p in parts):
        return {key: _joined([p[key] for p in parts], sizes) for key in parts[0]}
    if all(isinstance(p, (list, tuple)) for p in parts):
        if all(_of_samples(p, size) for p, size in zip(parts, sizes)):
            return [one for p in parts for one in p]
        if all(len(p) == len(parts[0]) for p in parts):
            columns = [_joined(column, sizes) for column in zip(*parts)]
            return type(parts[0])(*columns) if hasattr(parts[0], "_fields") else type(parts[0])(columns)
    return list(parts)


def _of_samples(part: Sequence[Any], size: int) -> bool:
    """Whether these are a batch, one for each sample, and not tensors that hold a batch each."""
    return len(part) == size and not all(isinstance(v, Tensor) and v.dim() and len(v) == size for v in part)


def _array(inputs: Tensor) -> np.ndarray:
    return inputs.detach().float().cpu().numpy()


def _weights(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        if isinstance(value, Tensor):
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _source(function: Callable | None) -> str:
    """What it is, as far as can be told."""
    if function is None:
        return ""
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):
        return repr(getattr(function, "__qualname__", type(function)))
