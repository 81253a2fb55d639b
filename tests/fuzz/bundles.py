"""Bundles: bytes flipped or cut, archives rebuilt oddly, members and manifests changed with hashes that hold. Each is
refused in one line, or works; and what was not forged computes what it always did.

A library whose hash holds is not changed: it is machine code, and a bundle's maker is trusted (runtime/archive.py)."""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from functools import cache
from pathlib import Path

import numpy as np

from mpcompile.cli.layer_table import layer_table
from mpcompile.errors import MpError
from mpcompile.runtime import archive, open_bundle
from tests.fuzz.kind import Aside, Kind, Number, Wrong, refused
from tests.fuzz.structured import edit, edited, spoiled
from tests.runtime.small_bundle import BIAS, SHAPE, small_library, small_variant, write_small


@cache
def library() -> bytes:
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        return small_library(Path(folder), parallel=False)


@cache
def whole() -> bytes:
    """A bundle of which nothing is wrong."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        return write_small(Path(folder) / "whole.mpc", small_variant(library())).read_bytes()


@cache
def rich() -> bytes:
    """The same with all that a manifest may say of a layer and a buffer."""
    from dataclasses import replace

    from tests.runtime.small_bundle import small_plan
    from tests.runtime.test_odd_manifests import CODES, ROW

    plan = replace(small_plan(), buffers=(*small_plan().buffers, CODES))
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        variant = small_variant(library(), plan=plan, layers=[ROW])
        return write_small(Path(folder) / "rich.mpc", variant).read_bytes()


def members_of(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as z:
        return {name: z.read(name) for name in z.namelist()}


def packed(members: dict[str, bytes], manifest: bytes, how: int = zipfile.ZIP_DEFLATED) -> bytes:
    """An archive whose manifest's own hash holds."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", how) as z:
        for name, data in {**members, archive.MANIFEST: manifest}.items():
            z.writestr(name, data)
        z.comment = archive._comment(manifest)
    return out.getvalue()


def used(path: Path) -> np.ndarray:
    """Opens, runs, traces and lists a bundle as users do; z of the ones."""
    with open_bundle(path, threads=1) as bundle:
        inputs = {port.name: np.ones(port.shape, np.float32) for port in bundle.inputs}
        found = bundle.run(inputs)
        bundle.run_traced(inputs)
        layer_table(bundle.layers)
    return found if isinstance(found, np.ndarray) else next(iter(found.values()))


class Bundles(Kind):
    name = "bundles"
    suffix = ".mpc"
    share = 0.05
    count = 7_000

    def make(self, number: Number, without: frozenset[int] = frozenset()) -> bytes:
        rng, data = self.rng(number), bytearray(whole())
        tail = rng.random() < 0.5  # the directory, the end record, the comment: a few bytes of many, and all used
        at = rng.randrange(max(0, len(data) - 450), len(data)) if tail else rng.randrange(len(data))
        what = rng.choice(("flip", "flip", "flip", "cut", "behind", "before", "hole", "zeros", "spoil"))
        if what == "flip":
            for _ in range(rng.choice((1, 1, 1, 5, 50))):
                data[at] ^= 1 << rng.randrange(8)
                at = rng.randrange(len(data))
        elif what == "cut":
            del data[at:]
        elif what == "behind":
            data += rng.randbytes(rng.randint(1, 200))
        elif what == "before":
            data[:0] = rng.randbytes(rng.randint(1, 200))
        elif what == "hole":
            del data[at : at + rng.randint(1, 200)]
        elif what == "zeros":
            data[at : at + 64] = bytes(len(data[at : at + 64]))
        else:
            return spoiled(bytes(data), rng)
        return bytes(data)

    def judge(self, content: bytes, folder: Path, aside: Aside) -> str:
        path = folder / "bad.mpc"
        path.write_bytes(content)
        try:
            found = used(path)
        except MpError as error:
            return refused(error, "bad.mpc")
        if not np.array_equal(found, (2 * np.ones(SHAPE, np.float32) + BIAS[:, None, None]) ** 2):
            raise Wrong("different: a damaged bundle computes something else")
        return "the same"


class Members(Bundles):
    """Members changed, taken out, put in, and the hashes made right."""

    name = "members"
    share = 0.03
    count = 3_000

    def make(self, number: Number, without: frozenset[int] = frozenset()) -> bytes:
        rng, members = self.rng(number), members_of(whole())
        manifest = json.loads(members.pop(archive.MANIFEST))
        name = rng.choice(list(members))
        code = name == manifest["variants"][0]["library"]
        data = members[name]
        what = rng.choice(("other", "empty", "drop", "more", "odd name", "rename", "lie"))
        if what == "other" and not code:
            changes = (
                data[: rng.randrange(len(data))],
                data + rng.randbytes(rng.randint(1, 500)),
                rng.randbytes(len(data)),
            )
            members[name] = rng.choice(changes)
        elif what in ("empty", "other"):
            members[name] = rng.choice((b"", b"no library", rng.randbytes(200), b"\x7fELF"))
        elif what == "drop":
            del members[name]
        elif what == "more":
            members["more"] = rng.randbytes(50)
        elif what == "odd name":
            members[rng.choice(("../up", "/etc/x", "a\nb", "é", "x" * 3000, "manifest.json/"))] = b"odd"
        elif what == "rename":
            members[name + "x"] = members.pop(name)
        manifest["members"] = {n: _entry(d) for n, d in members.items()}
        if what == "lie":
            entry = manifest["members"][name]
            entry.update(rng.choice(({"bytes": 0}, {"bytes": 1 << 40}, {"bytes": len(data) - 1}, {"sha256": "0" * 64})))
        if rng.random() < 0.2:
            edit(manifest, rng)
        return packed(
            members,
            json.dumps(manifest).encode(),
            rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)),
        )

    def judge(self, content: bytes, folder: Path, aside: Aside) -> str:
        path = folder / "bad.mpc"
        path.write_bytes(content)
        try:
            used(path)
        except MpError as error:
            return refused(error)
        return "works"


def _entry(data: bytes) -> dict:
    import hashlib

    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


class Manifests(Kind):
    """Manifests whose hash holds."""

    name = "manifests"
    suffix = ".json"
    share = 0.05
    count = 4_000

    def make(self, number: Number, without: frozenset[int] = frozenset()) -> bytes:
        rng = self.rng(number)
        text = members_of(rich())[archive.MANIFEST]
        if rng.random() < 0.1:
            return spoiled(text, rng)
        return json.dumps(edited(json.loads(text), rng)[0]).encode()

    def judge(self, content: bytes, folder: Path, aside: Aside) -> str:
        members = members_of(rich())
        members.pop(archive.MANIFEST)
        path = folder / "odd.mpc"
        path.write_bytes(packed(members, content))
        try:
            used(path)
        except MpError as error:
            return refused(error)
        return "works"
