"""What ships: the boards and fleets, the operators that are understood."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

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


TESTED = Path(__file__).with_name("onnx_backend.json")
"""Written by `python -m tests.compile.onnx_backend`; tests compare it with what passes."""


def float_operators() -> str:
    """The operators that run in float, with how many of ONNX's own tests of each are compiled and give what ONNX says;
    before them a sentence with the sums."""
    told = json.loads(TESTED.read_text(encoding="utf-8"))
    passed, refused, compiled = (sum(t[kind] for t in told.values()) for kind in ("passed", "refused", "compiled"))
    said = (
        f"Of ONNX's backend tests of one operator, {passed} pass in the reference and {refused} are refused, most of "
        "them for a type that is not float32 or for mixing the batch; none gives another result than ONNX Runtime, which "
        f"the reference asks. Of those that pass and have an operator in float, {compiled} are compiled and give ONNX's "
        "numbers: "
    )
    rows = [f"`{name}` {t['compiled']}" for name, t in sorted(told.items()) if t["compiled"]]
    return textwrap.fill(said + ", ".join(rows) + ".", 118)


EXPORTERS = Path(__file__).resolve().parents[2] / "tests" / "data" / "exporters" / "exporters.json"
"""Written by `make exporters`."""


def exporters() -> str:
    """A table of the files in tests/data/exporters: tool, version, form, and who computed the outputs kept beside."""
    rows = ["| tool | file | form | compared with |", "|---|---|---|---|"]
    told = json.loads(EXPORTERS.read_text(encoding="utf-8"))
    for name, t in sorted(told.items(), key=lambda item: (item[1]["package"], item[0])):
        rows.append(f"| {t['package']} {t['version']} | `{name}` | {cell(t['what'])} | {cell(t['witness'])} |")
    return "\n".join(rows)


def operators() -> str:
    """The operators of standard ONNX that the importer has a handler for; quantizers are told of elsewhere."""
    from mpcompile.frontend import importer, source  # noqa: F401  (source loads every handler)
    from mpcompile.frontend.qoperator import EXPANSIONS

    quantizers = ("QuantizeLinear", "DequantizeLinear")
    known = {name for qonnx, name in importer._HANDLERS if not qonnx and name not in quantizers}
    on_codes = "On codes (QOperator): " + ", ".join(sorted(name for _, name in EXPANSIONS))
    return "\n\n".join(textwrap.fill(text, 118) for text in (", ".join(sorted(known)), on_codes))
