"""Devices that are not this process: alone, or several side by side."""
