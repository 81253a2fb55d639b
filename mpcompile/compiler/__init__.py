"""Normalised graph → fused layers → Relax → one library and a static plan."""
