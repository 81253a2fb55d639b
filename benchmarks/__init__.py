"""Measures what DESIGN promises about speed: `python -m benchmarks`."""
