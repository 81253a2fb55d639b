"""The variants of a bundle: the same network for several CPUs in one file, of which opening picks one. No TVM here.

manifest.json has, beside what archive.py adds:

    target    name and description of what it was compiled for: a board, or a fleet of boards
    model     source file, batch, inputs, outputs
    variants  best first, one a board: target (all of its description), plan, layers, `library` (a member's name),
              `weights` (names of members that are its weights, one after another)

A bundle for one board is one with one variant.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mpcompile.errors import TargetError, UsageError
from mpcompile.ir.plan import Plan
from mpcompile.runtime.archive import write_archive
from mpcompile.runtime.driver import driver_of, lacks
from mpcompile.runtime.machine import HERE, Machine
from mpcompile.runtime.manifest import checked_plan, manifest_of
from mpcompile.runtime.shared_weights import share

ENDINGS = {"cpu": "so", "cuda": "cuda"}
"""Kind of device → what the name of its library in a bundle ends with."""


@dataclass(frozen=True)
class CompiledVariant:
    """What the compiler makes for one board: its description (JSON), plan, what is said of layers, library (as the kind's
    Driver loads it), constants at the offsets that the plan names."""

    target: dict
    plan: Plan
    layers: list[dict]
    library: bytes
    weights: bytes


@dataclass(frozen=True)
class Variant:
    """One of a bundle that was read. `library` and `weights` name members; `kind`, `arch` and `features` (as
    /proc/cpuinfo spells a CPU's) say what device it needs."""

    name: str
    kind: str
    arch: str
    features: tuple[str, ...]
    target: dict
    plan: Plan
    layers: list[dict]
    library: str
    weights: tuple[str, ...]

    @property
    def missing(self) -> list[str] | None:
        """Features that this machine's device lacks; None where it has none of that kind and architecture."""
        return lacks(self)

    @property
    def fits(self) -> bool:
        """Whether this machine can run it."""
        return self.missing == []


def write_bundle(path: str | os.PathLike, head: dict, variants: Sequence[CompiledVariant]) -> Path:
    """Writes M.mpc, whole or not at all. head: `target` and `model`. variants: best first, each of another name.

    Raises UsageError where the file cannot be written.
    """
    names = [v.target["name"] for v in variants]
    libraries = [f"{v.target['name']}.{ENDINGS.get(v.target.get('kind', 'cpu'), 'library')}" for v in variants]
    members = {library: v.library for library, v in zip(libraries, variants)}
    blocks, placed = share(names, [v.plan for v in variants], [v.weights for v in variants])
    rows = [
        {"target": v.target, "plan": plan.to_json(), "layers": v.layers, "library": library, "weights": weights}
        for library, v, (plan, weights) in zip(libraries, variants, placed)
    ]
    return write_archive(path, {**head, "variants": rows}, {**members, **blocks})


def variants_of(path: str | os.PathLike, manifest: dict) -> list[Variant]:
    """The variants of a bundle's manifest, best first. Raises ModelError, with the key, where the manifest is not
    valid."""
    entries = manifest_of(path, manifest).variants
    return [
        Variant(
            entry.target.name,
            entry.target.kind,
            entry.target.arch,
            entry.target.features,
            raw["target"],
            checked_plan(entry.plan, f"{path}: manifest.json: variants[{i}].plan"),
            raw["layers"],
            entry.library,
            entry.weights,
        )
        for i, (entry, raw) in enumerate(zip(entries, manifest["variants"]))
    ]


def pick(
    path: str | os.PathLike,
    variants: Sequence[Variant],
    wanted: str | None = None,
    machines: Mapping[str, Machine] | None = None,
) -> Variant:
    """The best variant that a machine can run, or the one `wanted`. `machines`: kind → its device of that kind; None:
    this one's.

    Raises UsageError where there is none of that name, TargetError where the machine cannot run it, or any.
    """
    if wanted is not None:
        named = [v for v in variants if v.name == wanted]
        if not named:
            raise UsageError(f"{path} has no variant {wanted}: it has {', '.join(v.name for v in variants)}")
        variants = named
    lacking = [(v, missing) for v in variants if (missing := lacks(v, machines)) is not None]
    if not lacking:
        raise _nowhere(path, variants, machines)
    for variant, missing in lacking:
        if not missing:
            return variant
    least, missing = min(lacking, key=lambda found: len(found[1]))
    which = (
        f"its variant {least.name}, which asks for least, needs"
        if len(variants) > 1
        else f"its variant {least.name} needs"
        if wanted
        else "it needs"
    )
    driver = driver_of(least)
    machine = driver.here() if machines is None else machines[least.kind]
    where = "here" if machine.name == HERE else f"on {machine.name}"
    raise TargetError(
        f"{path} does not run {where}: {which} {', '.join(missing)}, which this {driver.noun} "
        f"({machine.model}) lacks: compile the model for it"
    )


def _nowhere(
    path: str | os.PathLike, variants: Sequence[Variant], machines: Mapping[str, Machine] | None
) -> TargetError:
    """Of variants that are all for other kinds of devices, or other architectures."""
    kind, driver = variants[0].kind, driver_of(variants[0])  # which refuses a kind that is unknown
    built = ", ".join(dict.fromkeys(v.arch for v in variants))
    if machines is not None and kind not in machines:
        name = next(iter(machines.values())).name
        return TargetError(f"{path} was built for {built}: {name} has no {driver.noun}")
    try:
        machine = driver.here() if machines is None else machines[kind]
    except TargetError as error:
        return TargetError(f"{path} was built for {built}: {error}")
    return TargetError(f"{path} was built for {built}, {machine.name} is {machine.arch}")
