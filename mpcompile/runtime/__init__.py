"""Bundles: format, executor, timing. Needs the TVM runtime, no compiler."""

from mpcompile.runtime.bundle import Bundle, open_bundle
from mpcompile.runtime.variants import Compiled, Variant, write_bundle

__all__ = ["Bundle", "Compiled", "Variant", "open_bundle", "write_bundle"]
