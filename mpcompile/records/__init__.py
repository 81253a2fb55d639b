"""Tuned schedules: their files, the key of a layer, and the record or the nearest shape's that a layer gets."""
