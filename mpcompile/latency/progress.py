"""Whom long work tells how far it is. All are called in the thread of whoever asked for the work."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int], None]
"""(done, in all)"""
LayerProgress = Callable[[int, int, str], None]
"""(done, in all, the layer)"""
PhaseProgress = Callable[[str, int, int, dict], None]
"""(what is being done, steps done, steps in all, figures so far)"""
