"""The command line: `main` runs a verb of `verbs/`; console, interrupts and doctor serve them all."""

from mpcompile.cli.command_line import VERBS, main, parser

__all__ = ["VERBS", "main", "parser"]
