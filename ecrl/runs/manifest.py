"""A list of a folder's files with sizes and checksums, which shows whether a checkpoint is damaged."""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path

from ecrl.errors import UsageError

NAME = "manifest.json"
_BLOCK = 2**24  # bytes read at once


def write_manifest(folder: Path) -> None:
    """List a folder's files, and flush them to the disk.

    Raises:
        OSError: the disk is full or gone.
    """
    files = [path for path in sorted(folder.iterdir()) if path.name != NAME]
    content = {path.name: {"bytes": path.stat().st_size, "crc32": _checksum(path)} for path in files}
    (folder / NAME).write_text(json.dumps(content, indent=1) + "\n")
    for path in [*files, folder / NAME, folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def check_manifest(folder: Path) -> None:
    """Compare a folder with its list.

    Raises:
        UsageError: names the first file that is missing, short or changed.
    """
    failing = f"{folder} cannot be read as a checkpoint"
    advice = "it is damaged. Start a new run, or put a whole checkpoint in its place."
    try:
        content = json.loads((folder / NAME).read_text())
        entries = [(str(name), int(e["bytes"]), int(e["crc32"])) for name, e in content.items()]
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        raise UsageError(f"{failing}: no {NAME} in it can be read; {advice}") from None
    for name, size, crc32 in entries:
        path = folder / name
        if not path.is_file():
            raise UsageError(f"{failing}: {name} is missing; {advice}")
        if path.stat().st_size != size:
            raise UsageError(f"{failing}: {name} has {path.stat().st_size} bytes instead of {size}; {advice}")
        if _checksum(path) != crc32:
            raise UsageError(f"{failing}: the content of {name} changed; {advice}")


def _checksum(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            value = zlib.crc32(block, value)
    return value
