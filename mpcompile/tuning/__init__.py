"""Searching the schedule of each layer by measuring, and the records of what was found."""
