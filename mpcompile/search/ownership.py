"""Whose run a folder holds: of which configuration, measured on which kind of device."""

from __future__ import annotations

import hashlib
from pathlib import Path

from mpcompile.errors import UsageError
from mpcompile.search.device import SearchDevice
from mpcompile.search.folder import Folder

RUN = "run.json"
CONFIG, CONFIG_HASH = "config.toml", "config_sha256"
"""The copy of the configuration file; its hash in run.json."""


def check_device(folder: Folder, device: SearchDevice) -> None:
    """Times of two kinds of devices say nothing about each other, and a front of both is none. Raises UsageError where
    the run was measured on another kind."""
    before = (folder.read(RUN) or {}).get("device", {})
    for what in ("cpu", "target", "threads"):
        was, now = before.get(what), device.identity.get(what)
        if was is not None and was != now:
            raise UsageError(
                f"{folder.path} holds a run that was measured with {what} {was}, not {now}: choose another folder"
            )


def holds(path: Path, text: bytes) -> bool:
    """Whether a file is there and has this content."""
    try:
        return path.read_bytes() == text
    except OSError:
        return False


def check_its_own(folder: Folder, where: str, text: bytes) -> None:
    """Where the copy of the configuration is missing or another one. Raises UsageError unless the folder is empty, or
    run.json knows that it is the run of this configuration: then the copy was damaged."""
    copy = folder.path / CONFIG
    if (folder.read(RUN) or {}).get(CONFIG_HASH) == hashlib.sha256(text).hexdigest():
        why = "is damaged" if copy.exists() else "is missing"
        folder.warn(f"{copy} {why}: it is written again from {where}")
    elif copy.exists():
        raise UsageError(
            f"{folder.path} holds the run of another configuration ({copy}): choose another folder for {where}"
        )
    elif any(folder.path.iterdir()):
        raise UsageError(f"{folder.path} is not empty, and holds no run of a search")
