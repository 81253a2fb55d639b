"""The options of each search method: `[search.NAME]` of a search's TOML. No torch here."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from mpcompile.search.schema import FINITE

Count = Annotated[int, Meta(ge=1)]
Positive = Annotated[float, Meta(gt=0, le=FINITE)]
FromZero = Annotated[float, Meta(ge=0, le=FINITE)]
Share = Annotated[float, Meta(ge=0, le=1)]


def said(description: str) -> Meta:
    return Meta(description=description)


JUDGED = said("images that a choice of bits is judged by, of those to train with")
RENORM = said("whether BatchNorm takes the statistics of the judged images, as it would once trained at the bits")


class EBSOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """EBS: strengths of the candidates, learned by gradient on held-out images."""

    gumbel: Annotated[bool, said("add Gumbel noise to the strengths, the method's stochastic variant")] = False
    strength_rate: Annotated[Positive, said("learning rate of the strengths")] = 0.03
    hot: Annotated[Positive, said("temperature of the mixture at the beginning")] = 1.0
    cold: Annotated[Positive, said("temperature of the mixture at the end")] = 0.2
    settle: Annotated[Share, said("the part of the search after which choices are settled, one after another")] = 0.5


class EdMIPSOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """EdMIPS: strengths and weights learned together, of the same images, by stochastic gradient descent."""

    strength_rate: Annotated[Positive, said("learning rate of the strengths, a tenth of it after 40 and 80 %")] = 0.01
    momentum: Annotated[Share, said("momentum of the strengths")] = 0.9
    decay: Annotated[FromZero, said("weight decay of the strengths")] = 1e-4
    start: Annotated[FromZero, said("what all strengths are at first")] = 0.01
    settle: Annotated[Share, said("the part of the search after which choices are settled, one after another")] = 0.5


class ILPOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """The integer program over what each choice of bits loses by itself."""

    sensitivity: Annotated[
        Literal["loss", "hessian", "fisher"],
        said("what a choice loses: measured, or by the Hessian's trace (HAWQ-V2), or by squared gradients"),
    ] = "loss"
    samples: Annotated[Count, JUDGED] = 512
    renorm: Annotated[bool, RENORM] = True
    probes: Annotated[Count, said("random vectors that the Hessian's trace is estimated by")] = 8


class GreedyOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """A walk down from the most bits."""

    samples: Annotated[Count, JUDGED] = 512
    renorm: Annotated[bool, RENORM] = True


SourceName = Literal["ebs", "edmips", "ilp", "bsq", "supernet", "greedy", "random", "uniform"]


class HalvingOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """Successive halving: candidates of other methods, trained for a moment, of which the better half goes on."""

    sources: Annotated[list[SourceName], said("methods whose bits are candidates; their options count")] = field(
        default_factory=lambda: ["ilp", "greedy", "uniform"]
    )
    candidates: Annotated[Count, said("in all: as many as are lacking are mutants of those")] = 8
    mutation: Annotated[Share, said("probability that a mutant's choice is drawn anew")] = 0.2
    held_out: Annotated[float, Meta(gt=0, lt=1), said("share of the images that candidates are judged by")] = 0.25
    epochs: Annotated[Positive, said("of a candidate's first training, the next has twice as many")] = 1.0


class RandomOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """Bits drawn at random that keep the budget."""

    draws: Annotated[Count, said("of so many, the one that loses least without training is taken")] = 1
    samples: Annotated[Count, JUDGED] = 512


class SupernetOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """One network trained at bits that are drawn anew in every step, then evolution."""

    population: Annotated[int, Meta(ge=2), said("assignments of a generation")] = 32
    generations: Annotated[Count, said("of the evolution")] = 10
    parents: Annotated[int, Meta(ge=2), said("the best assignments so far that the next are made of")] = 8
    mutation: Annotated[Share, said("probability that a choice is drawn anew")] = 0.15
    samples: Annotated[Count, JUDGED] = 512


class BSQOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """BSQ: bit planes of the weights as parameters, pruned by a group lasso."""

    activations: Annotated[int, Meta(ge=1, le=8), said("bits of activations, which BSQ does not search")] = 4
    prune: Annotated[Count, said("how often, in the search, codes are made anew and empty planes dropped")] = 8
    rate: Annotated[Positive, said("learning rate of the planes")] = 0.02
    strength: Annotated[Positive, said("of the group lasso, at first; doubled while the cost is above the target")] = (
        0.01
    )
