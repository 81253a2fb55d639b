"""Tables of a configuration file made typed by msgspec, and what may stand in them as a list, for the documentation.

A section is a frozen msgspec.Struct whose fields bear their bounds and one line of description in `Meta`. What is wrong
ends in one ModelError that names file and key and says what would be accepted.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from mpcompile.errors import ModelError, UsageError
from mpcompile.ir.bits import BitPair

FINITE = sys.float_info.max
"""As an upper bound: any number but infinity."""

Section = TypeVar("Section", bound=msgspec.Struct)


@dataclass(frozen=True)
class ConfigKey:
    """A key that may be given. `section`: of the table that it stands in, "" at the top. `type`: in words, its bounds
    included. `default`: as `plain` has it."""

    section: str
    name: str
    type: str
    default: Any
    description: str

    @property
    def path(self) -> str:
        return f"{self.section}.{self.name}" if self.section else self.name


def keys(kind: type[msgspec.Struct], section: str = "") -> Iterator[ConfigKey]:
    """Every key of `kind` and of the tables in it, in the order of the fields."""
    for field in _fields(kind):
        within, description = _unwrapped(field.type)
        if isinstance(within, inspect.StructType):
            yield from keys(within.cls, f"{section}.{field.name}" if section else field.name)
        else:
            yield ConfigKey(section, field.name, _words(field.type), plain(_default(field)), description)


def typed(kind: type[Section], given: dict, where: str) -> Section:
    """`given` as a `kind`. Raises ModelError, in one line that begins with `where`, at a key that there is not, at a
    value of another type, or out of bounds."""
    try:
        return msgspec.convert(given, kind, dec_hook=_special)
    except msgspec.ValidationError as error:
        raise ModelError(f"{where}: {_complaint(kind, given, str(error))}") from None


def plain(value: Any) -> Any:
    """What JSON says of a section or of one of its values: bits as text."""
    if isinstance(value, BitPair):
        return str(value)
    if isinstance(value, msgspec.Struct):
        return {name: plain(getattr(value, name)) for name in value.__struct_fields__}
    return [plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def _special(kind: type, value: Any) -> Any:
    """msgspec's question for types that it does not know."""
    if kind is not BitPair or not isinstance(value, str):
        raise ValueError
    try:
        return BitPair.parse(value)
    except UsageError as error:
        raise ValueError(str(error)) from None


def _complaint(kind: type[msgspec.Struct], given: dict, said: str) -> str:
    """What msgspec says, in our words: it ends with the way to the value, as in `$.search.weights[0]`."""
    found = re.search(r" - at `\$([^`]*)`$", said)
    names = re.findall(r"\.([^.\[\]]+)", found[1]) if found else []
    value: Any = given
    type_: inspect.Type = inspect.type_info(kind)
    for name in names:
        value = value[name]
        within, _ = _unwrapped(type_)
        type_ = next(f.type for f in _fields_of(within) if f.encode_name == name)
    key = ".".join(names)
    if unknown := re.match(r"Object contains unknown field `([^`]*)`", said):
        prefix = f"{key}." if key else ""
        known = ", ".join(prefix + f.encode_name for f in _fields_of(_unwrapped(type_)[0]))
        return f"there is no key {prefix}{unknown[1]}; {known} would be accepted"
    return f"{key} must be {_words(type_)}, not {value!r}"


# -- types in words ------------------------------------------------------------------------------------------------------
def _fields(kind: type[msgspec.Struct]) -> tuple[inspect.Field, ...]:
    return _fields_of(inspect.type_info(kind))


def _fields_of(type_: inspect.Type) -> tuple[inspect.Field, ...]:
    assert isinstance(type_, inspect.StructType)
    return type_.fields


def _unwrapped(type_: inspect.Type) -> tuple[inspect.Type, str]:
    """A type without its metadata, and the description that they hold."""
    description = ""
    while isinstance(type_, inspect.Metadata):
        description = description or (type_.extra_json_schema or {}).get("description", "")
        type_ = type_.type
    return type_, description


def _default(field: inspect.Field) -> Any:
    return field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()


def _words(type_: inspect.Type) -> str:
    """What would be accepted, for people."""
    match _unwrapped(type_)[0]:
        case inspect.IntType() as number:
            return "a whole number" + _bounds(number)
        case inspect.FloatType() as number:
            return "a number" + _bounds(number)
        case inspect.BoolType():
            return "true or false"
        case inspect.StrType():
            return "text"
        case inspect.LiteralType(values=values):
            return " or ".join(f'"{v}"' if isinstance(v, str) else str(v) for v in values)
        case inspect.ListType(item_type=item, min_length=least):
            return f"a list{f' of at least {least}' if least else ''}, each {_words(item)}"
        case inspect.CustomType(cls=cls) if cls is BitPair:
            return 'text like "w2a4", bits from 1 to 8'
        case inspect.StructType():
            return "a table"
        case other:
            raise TypeError(f"a configuration cannot have a {other}")


def _bounds(number: inspect.IntType | inspect.FloatType) -> str:
    if number.ge is not None and number.le not in (None, FINITE):
        return f" from {number.ge:g} to {number.le:g}"
    if number.ge is not None:
        return f" of at least {number.ge:g}"
    return f" above {number.gt:g}" if number.gt is not None else ""
