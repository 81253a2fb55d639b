"""Bundles: format, executor, timing. Needs the TVM runtime, no compiler."""

from mpcompile.runtime.bundle import Bundle, open_bundle
from mpcompile.runtime.variants import CompiledVariant, Variant, write_bundle

__all__ = ["Bundle", "CompiledVariant", "Variant", "open_bundle", "write_bundle"]
