"""The keys of TOML files: type and default from the code's own types; what they mean from a key's description there, or
else from the comments of the annotated TOML in the docstring of the module that reads it."""

from __future__ import annotations

import json
import re
import textwrap
import tomllib
import typing

import msgspec

from mpcompile.search import config
from mpcompile.targets import Target, board

BUILT_IN = ("name",)
"""Fields of a board that its file does not say: the name is the file's own."""


def annotated(module) -> str:
    """The TOML in a module's docstring: its indented part."""
    return textwrap.dedent("\n".join(re.findall(r"^    .*|^$", module.__doc__ or "", re.MULTILINE))).strip()


def comments(text: str) -> dict[str, str]:
    """ "section.key" → its comment in an annotated TOML, lines that go on with nothing but a comment included."""
    found: dict[str, str] = {}
    section, last = "", ""
    for line in text.splitlines():
        if head := re.match(r"\[([\w.]+)\]\s*(?:#\s*(.*))?$", line):
            section, last = head[1], head[1]
            found[last] = head[2] or ""
        elif key := re.match(r"(\w+) = (?:\"[^\"]*\"|\[.*?\](?=\s*(?:#|$))|[^#\"\[]+?)\s*(?:#\s*(.*))?$", line):
            last = f"{section}.{key[1]}" if section else key[1]
            found[last] = key[2] or ""
        elif (more := re.match(r"\s*#\s*(.*)$", line)) and last:
            found[last] = f"{found[last]} {more[1]}".strip()
    return found


def type_name(found: msgspec.inspect.Type) -> str:
    """A type in words."""
    inspected = msgspec.inspect
    match found:
        case inspected.IntType():
            return "whole number"
        case inspected.FloatType():
            return "number"
        case inspected.BoolType():
            return "true or false"
        case inspected.StrType() | inspected.CustomType():  # a type of ours is read from text
            return "text"
        case inspected.ListType(item_type=item) | inspected.VarTupleType(item_type=item):
            return f"list of {type_name(item)}"
        case inspected.TupleType(item_types=items):
            return "[" + ", ".join(type_name(i) for i in items) + "]"
        case inspected.LiteralType(values=values):
            return " or ".join(f"`{json.dumps(v)}`" for v in values)
        case inspected.Metadata(type=inner):
            return type_name(inner)
        case inspected.UnionType(types=types):
            return " or ".join(type_name(t) for t in types if not isinstance(t, inspected.NoneType))
    raise ValueError(f"no word for a key of type {found}")


def description(found: msgspec.inspect.Type) -> str:
    """What msgspec.Meta says of a key."""
    told = ""
    while isinstance(found, msgspec.inspect.Metadata):
        told, found = told or (found.extra_json_schema or {}).get("description", ""), found.type
    return told


def default_of(field: msgspec.inspect.Field, override=None):
    if override is not None:
        return override
    if field.default is not msgspec.NODEFAULT:
        return field.default
    return field.default_factory() if field.default_factory is not msgspec.NODEFAULT else None


def row(name: str, field: msgspec.inspect.Field, default, told: str) -> str:
    """A line of a table of keys; `told` is its comment. Raises ValueError where nothing is told about the key."""
    told = description(field.type) or told
    if not told:
        raise ValueError(f"neither the type nor the annotated TOML says anything about {name}")
    shown = "required" if field.required else f"`{json.dumps(default, default=str, ensure_ascii=False)}`"
    told = re.sub(r"\"[^\"]*\"", lambda m: f"`{m[0]}`", told).replace("|", "\\|")
    return f"| `{name.split('.')[-1]}` | {type_name(field.type)} | {shown} | {told} |"


def fields_of(kind: type) -> tuple[msgspec.inspect.Field, ...]:
    """The keys of a table, as msgspec sees a dataclass or a struct."""
    found = msgspec.inspect.type_info(kind)
    assert isinstance(found, (msgspec.inspect.DataclassType, msgspec.inspect.StructType)), found
    return found.fields


HEAD = "| key | type | left out | means |\n|---|---|---|---|"


def search_keys() -> str:
    """All keys of a search's configuration, a table a section, after the whole file as an example."""
    kind = typing.get_type_hints(config.read)["return"]
    text = annotated(config)
    tomllib.loads(text)
    told, top, sections = comments(text), [], []
    default = kind()
    for field in fields_of(kind):
        inner = getattr(field.type, "fields", None)
        if inner is None:
            top.append(row(field.name, field, default_of(field), told.pop(field.name, "")))
            continue
        sections += _section(field.name, inner, getattr(default, field.name), told)
    _none_left(told, "search")
    return "\n".join([HEAD, *top, *sections, "", "## A whole file", "", f"```toml\n{text}\n```"])


def _section(name: str, fields, values, told: dict[str, str]) -> list[str]:
    """A table and those in it; what is told of it is taken out of `told`."""
    lines, inner = ["", f"## [{name}]", ""], []
    if about := told.pop(name, ""):
        lines += [about[0].upper() + about[1:] + ".", ""]
    lines.append(HEAD)
    for f in fields:
        path, value = f"{name}.{f.name}", getattr(values, f.name)
        if (more := getattr(f.type, "fields", None)) is not None:
            inner += _section(path, more, value, told)
        else:
            lines.append(row(path, f, default_of(f, value), told.pop(path, "")))
    return lines + inner


def board_keys() -> str:
    """All keys of a board's file."""
    text = annotated(board)
    tomllib.loads(text)
    told = comments(text)
    rows = [row(f.name, f, default_of(f), told.pop(f.name, "")) for f in fields_of(Target) if f.name not in BUILT_IN]
    _none_left(told, "board")
    return "\n".join([HEAD, *rows, "", "## A whole file", "", f"```toml\n{text}\n```"])


def _none_left(told: dict[str, str], what: str) -> None:
    if told:
        raise ValueError(f"the annotated TOML of a {what} has keys that the code does not: {', '.join(told)}")
