"""One line of the result: what was measured, what it must reach, and whether it does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import median

HEADERS = ("", "what", ">measured", ">at most here", "must reach", "")
AT_MOST = ("s", "× bytes", "× time", "% error")


@dataclass(frozen=True)
class Row:
    """`value` and `target` in `unit`: "×" and "of ceiling" should be at least the target, those of AT_MOST at most.

    value None: it could not be measured, `note` says why. target None: for information. most: a ratio to something that
    was measured cannot be larger on this CPU, where its instructions alone take so long.
    """

    group: str
    what: str
    value: float | None
    unit: str
    target: float | None = None
    note: str = ""
    detail: dict = field(default_factory=dict)
    most: float | None = None

    @property
    def reached(self) -> bool | None:
        """None where nothing is to be reached, or nothing was measured."""
        if self.value is None or self.target is None:
            return None
        return self.value <= self.target if self.unit in AT_MOST else self.value >= self.target

    @property
    def possible(self) -> bool:
        """Whether the CPU's ceiling lets the target be reached."""
        return self.most is None or self.target is None or self.most >= self.target

    def to_json(self) -> dict:
        return {**asdict(self), "reached": self.reached}

    def cells(self) -> tuple[str, str, str, str, str, str]:
        """What is under HEADERS, as text."""
        least = "≤" if self.unit in AT_MOST else "≥"
        value = "not measured" if self.value is None else f"{self.value:.2f} {self.unit}"
        target = (
            ""
            if self.target is None
            else f"{least} {self.target:g} {'yes' if self.reached else 'NO' if self.reached is False else ''}"
        )
        most = "" if self.most is None else f"{self.most:.1f}"
        return self.group, self.what, value, most, target.strip(), self.note


def markdown(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table; a group is named once."""
    lines = ["| | what | measured | at most here | must reach | |", "|---|---|---|---|---|---|"]
    before = None
    for row in rows:
        group, *rest = row.cells()
        lines.append("| " + " | ".join([group if group != before else "", *rest]) + " |")
        before = group
    return "\n".join(lines) + "\n"


def summary(rows: Sequence[Row]) -> str:
    """A line for each group and what must be reached in it: least, median and largest figure, and how many reached
    it."""
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        groups.setdefault((row.group, row.unit, row.target), []).append(row)
    lines = ["| | least | median | largest | must reach | reached |", "|---|---|---|---|---|---|"]
    for (group, unit, target), found in groups.items():
        values = sorted(row.value for row in found if row.value is not None)
        spread = [values[0], median(values), values[-1]] if values else []
        figures = [f"{v:.2f}" for v in spread] or ["", "not measured", ""]
        least = "≤" if unit in AT_MOST else "≥"
        wanted = "" if target is None else f"{least} {target:g}"
        reached = "" if target is None else f"{sum(row.reached is True for row in found)} of {len(found)}"
        possible = sum(row.possible for row in found)
        reached += f", {possible} could on this CPU" if possible < len(found) else ""
        name = f"{group}: {found[0].what}" if len(found) == 1 else group
        lines.append(f"| {name}, {unit} | " + " | ".join([*figures, wanted, reached]) + " |")
    return "\n".join(lines) + "\n"
