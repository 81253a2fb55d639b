"""Latency, measured: the one measurer, the latency table."""
