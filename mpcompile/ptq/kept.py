"""Which pairs of bits each layer may get: all candidates, or the one that it is kept at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from mpcompile.allocate.costs import Choices
from mpcompile.errors import UsageError
from mpcompile.ir.bits import BitPair
from mpcompile.ptq.places import Places

FLOAT = "float"
ENDS = BitPair(8, 8)
"""Of the first and the last layer, where nothing else is said."""


def parse_keep(value: str | int | BitPair) -> BitPair | None:
    """8, "8", "w4a8"; None of "float". Raises UsageError at anything else."""
    text = str(value).lower()
    if text == FLOAT:
        return None
    try:
        return BitPair.parse(f"w{text}a{text}" if text.isdecimal() else text)
    except UsageError:
        raise UsageError(f"keep at {value!r}; bits from 1 to 8, or like w4a8, or float would be accepted") from None


def matching(keep: Mapping[str, BitPair | None], names: Sequence[str]) -> dict[str, BitPair | None]:
    """Layer → what it is kept at, of names and patterns (with * and ?), the last that fits. Raises UsageError at one that
    fits none."""
    found: dict[str, BitPair | None] = {}
    for pattern, bits in keep.items():
        fitting = [n for n in names if n == pattern or fnmatchcase(n, pattern)]
        if not fitting:
            raise UsageError(f"keep {pattern}: the model has no layer of that name; it has {', '.join(names)}")
        found.update(dict.fromkeys(fitting, bits))
    return found


def choices(places: Places, keep: Mapping[str, BitPair], pairs: Sequence[BitPair]) -> Choices:
    """Of all layers. A tensor that a kept layer reads has its bits for all. Raises UsageError where two want different
    ones."""
    kept = dict.fromkeys([*places.first, *places.last], ENDS) | dict(keep)
    fixed: dict[str, tuple[int, str]] = {}
    for tensors in places.tied():
        for t in tensors:
            for k in (k for k in places.readers(t) if k in kept):
                bits, other = fixed.setdefault(tensors[0], (kept[k].activations, k))
                if bits != kept[k].activations:
                    raise UsageError(
                        f"{k} and {other} read the same {t}, but are kept at {kept[k].activations} and {bits} bits of it"
                    )
        fixed.update({t: fixed[tensors[0]] for t in tensors if tensors[0] in fixed})
    found = {}
    for k, layer in places.layers.items():
        a = {fixed[t][0] for t in layer.tensors if t in fixed}
        if k in kept:
            found[k] = (kept[k],)
        elif a:
            found[k] = tuple(BitPair(w, min(a)) for w in sorted({p.weights for p in pairs}))
        else:
            found[k] = tuple(pairs)
    return found


def uniform(found: Choices, pair: BitPair) -> dict[str, BitPair]:
    """The pair wherever it may be chosen; else its weight bits; in layers that are kept their own."""
    made = {}
    for k, pairs in found.items():
        nearest = [p for p in pairs if p == pair] or [p for p in pairs if p.weights == pair.weights] or list(pairs)
        made[k] = nearest[0]
    return made
