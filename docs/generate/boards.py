"""What ships: the boards and fleets, the operators that are understood."""

from __future__ import annotations

import textwrap

from docs.generate.verbs import cell
from mpcompile.targets import list_fleets, list_targets, load_fleet, load_target


def boards() -> str:
    """Tables of the boards and of the fleets that ship."""
    rows = ["| board | is | cores | vectors |", "|---|---|---|---|"]
    for name in list_targets():
        if name != "native":
            t = load_target(name)
            rows.append(f"| `{name}` | {cell(t.description)} | {t.cores} | {t.vector_bits} bits |")
    rows += ["", "| fleet | is | holds, best first |", "|---|---|---|"]
    for name in list_fleets():
        fleet = load_fleet(name)
        rows.append(f"| `{name}` | {cell(fleet.description)} | {', '.join(f'`{b.name}`' for b in fleet.boards)} |")
    return "\n".join(rows)


def operators() -> str:
    """The operators of standard ONNX that the importer has a handler for; quantizers are told of elsewhere."""
    from mpcompile.frontend import importer, source  # noqa: F401  (source loads every handler)
    from mpcompile.frontend.qoperator import EXPANSIONS

    quantizers = ("QuantizeLinear", "DequantizeLinear")
    known = {name for qonnx, name in importer._HANDLERS if not qonnx and name not in quantizers}
    on_codes = "On codes (QOperator): " + ", ".join(sorted(name for _, name in EXPANSIONS))
    return "\n\n".join(textwrap.fill(text, 118) for text in (", ".join(sorted(known)), on_codes))
