"""Devices that are not this process: one, or several side by side."""
