"""Every verb of the command line, from its parser."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator

from mpcompile.cli import VERBS, parser

SHARED = ("--help", "--json", "--debug")
"""Options of every verb, explained once."""


def cell(text: str) -> str:
    """Text as a cell of a table; names of options as code."""
    text = re.sub(r"(?<![\w`-])(--[a-z][a-z-]*)", r"`\1`", " ".join(text.split()))
    return text.replace("|", "\\|").replace("<", "&lt;")


def subparsers() -> dict[str, argparse.ArgumentParser]:
    """Verb → its parser."""
    (action,) = (a for a in parser()._actions if isinstance(a, argparse._SubParsersAction))
    return dict(action.choices)


def verb_list() -> str:
    """A table: each verb, with a link to its options, and what it does."""
    rows = [f"| [`{name}`](verbs.md#{name}) | {cell(told)} |" for name, told in VERBS.items()]
    return "\n".join(["| verb | does |", "|---|---|", *rows])


def verbs() -> str:
    """A section for each verb: what it does, its usage, its arguments and options."""
    os.environ["COLUMNS"] = "100"  # argparse wraps a usage at the width of the terminal
    parts = []
    for name, sub in subparsers().items():
        usage = sub.format_usage().removeprefix("usage: ").rstrip()
        parts += [f"## {name}", "", cell(sub.description or ""), "", f"```text\n{usage}\n```", "", *_options(sub)]
    return "\n".join(parts)


def _options(sub: argparse.ArgumentParser) -> Iterator[str]:
    formatter = sub._get_formatter()
    for group in sub._action_groups:
        rows = []
        for action in group._group_actions:
            if set(action.option_strings) & set(SHARED) or action.help == argparse.SUPPRESS:
                continue
            told = formatter._expand_help(action) if action.help else ""
            names = [f"`{n}`" for n in action.option_strings] or [f"`{action.metavar or action.dest}`"]
            value = ""
            if action.option_strings and action.nargs != 0:
                value = f" `{action.metavar or '{' + ','.join(map(str, action.choices or ())) + '}'}`"
            needed = " (required)" if action.option_strings and action.required else ""
            rows.append(f"| {', '.join(names)}{value.replace('|', chr(92) + '|')} | {cell(told)}{needed} |")
        if rows:
            if group.description:
                yield f"{cell(group.title or '').capitalize()}: {cell(group.description)}.\n"
            yield "| argument | means |\n|---|---|"
            yield from rows
            yield ""


def exit_codes() -> str:
    """What the command line ends with, from its own help."""
    told = " ".join((parser().epilog or "").removeprefix("exit codes: ").split())
    rows = [f"| {code} | {cell(what)} |" for code, what in (part.split(" ", 1) for part in told.split(" · "))]
    return "\n".join(["| code | means |", "|---|---|", *rows])
