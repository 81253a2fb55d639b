"""The boards: one TOML each, read by load_target. Add a file here, or pass the path of your own."""

from mpcompile.targets.fleet import list_fleets
from mpcompile.targets.load import list_targets, load_fleet, load_target
from mpcompile.targets.native import native_target
from mpcompile.targets.target import Fleet, Target

__all__ = ["Fleet", "Target", "list_fleets", "list_targets", "load_fleet", "load_target", "native_target"]
