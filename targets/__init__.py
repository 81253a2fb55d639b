"""The boards: one TOML each, read by load_target. Add a file here, or pass the path of your own."""

from mpcompile.targets.load import list_targets, load_target
from mpcompile.targets.native import native_target
from mpcompile.targets.target import Target

__all__ = ["Target", "list_targets", "load_target", "native_target"]
