"""mpcompile doctor"""

from __future__ import annotations

import argparse

from mpcompile.cli import console


def arguments(parser: argparse.ArgumentParser) -> None:
    """No options of its own."""


def work(args: argparse.Namespace) -> tuple[dict, int]:
    from mpcompile.cli.doctor import examine
    from mpcompile.errors import TargetError

    findings = examine()
    console.table(
        ("", "what", "found", "mend it with"),
        [({True: "ok", False: "FAILS", None: "absent"}[f.ok], f.name, f.found, f.mend) for f in findings],
    )
    broken = [f.name for f in findings if f.ok is False]
    absent = [f.name for f in findings if f.ok is None]
    if broken:
        console.complain(f"this machine lacks what mpcompile needs: {', '.join(broken)}")
    else:
        console.say(f"Ready{': optional and absent are ' + ', '.join(absent) if absent else ', nothing is missing'}.")
    return {"ok": not broken, "findings": [f.to_json() for f in findings]}, TargetError.exit_code if broken else 0
