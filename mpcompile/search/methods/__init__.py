"""Search methods, one class each. To add one, derive from `Method`, give it options in method_options.py, and enter it
here."""

from __future__ import annotations

from mpcompile.search.methods.base import Found, Method, Query
from mpcompile.search.methods.bsq import BSQ
from mpcompile.search.methods.ebs import EBS
from mpcompile.search.methods.edmips import EdMIPS
from mpcompile.search.methods.greedy import Greedy
from mpcompile.search.methods.halving import Halving
from mpcompile.search.methods.ilp import ILP
from mpcompile.search.methods.random import Random
from mpcompile.search.methods.supernet import Supernet
from mpcompile.search.methods.uniform import Uniform

METHODS: dict[str, type[Method]] = {
    "ebs": EBS,
    "edmips": EdMIPS,
    "ilp": ILP,
    "bsq": BSQ,
    "supernet": Supernet,
    "greedy": Greedy,
    "halving": Halving,
    "random": Random,
    "uniform": Uniform,
}

__all__ = ["METHODS", "Found", "Method", "Query"]
