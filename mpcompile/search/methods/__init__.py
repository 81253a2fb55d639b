"""Search methods, one class each. To add one, derive from `Method`, give it options in method_options.py, and enter it
here."""

from __future__ import annotations

from mpcompile.search.methods.base import Found, Method, Query
from mpcompile.search.methods.ebs import EBS
from mpcompile.search.methods.edmips import EdMIPS
from mpcompile.search.methods.ilp import ILP

METHODS: dict[str, type[Method]] = {
    "ebs": EBS,
    "edmips": EdMIPS,
    "ilp": ILP,
}

__all__ = ["METHODS", "Found", "Method", "Query"]
