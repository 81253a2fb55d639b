"""Bundles: format, executor, timing. Needs the TVM runtime, no compiler."""

from mpcompile.runtime.bundle import Bundle, open_bundle, write_bundle

__all__ = ["Bundle", "open_bundle", "write_bundle"]
