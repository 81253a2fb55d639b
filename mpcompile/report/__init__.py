"""The report of a search: a run's folder → one HTML file that needs no network, and the same numbers as JSON."""
