"""Checkpoints for task code: say where you are, and start there next time, on whatever machine.

    from scheduler.client import checkpoint

    done = checkpoint.load(default=0)
    for number, item in enumerate(items[done:], done + 1):
        work(item)
        checkpoint.save(number)

The worker names a file in `$DTS_CHECKPOINT_FILE`, stores each change of it, and restores it before the next attempt.
Outside of a task there is no such file: `load` gives the default and `save` does nothing, so the code runs anywhere.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import msgspec

LARGEST = 1024 * 1024
"""Bytes that a checkpoint may have."""


def load(default: Any = None) -> Any:
    """Return what `save` was last given, by this attempt or one before; `default` if there is nothing."""
    data = load_bytes()
    return default if data is None else msgspec.json.decode(data)


def save(value: Any) -> None:
    """Store a value that JSON can hold. Raises ValueError beyond 1 MiB."""
    save_bytes(msgspec.json.encode(value))


def load_bytes() -> bytes | None:
    """Return the checkpoint as it stands, None if there is none."""
    path = checkpoint_file()
    if path is None:
        return None
    try:
        return path.read_bytes() or None
    except FileNotFoundError:
        return None


def save_bytes(data: bytes) -> None:
    """Store a checkpoint: written aside, then renamed into place, so that nobody ever reads half of one.

    Raises ValueError beyond 1 MiB.
    """
    if len(data) > LARGEST:
        raise ValueError(f"a checkpoint has {LARGEST} bytes at most, not {len(data)}")
    path = checkpoint_file()
    if path is None:
        return
    handle, aside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(aside).replace(path)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise


def checkpoint_file() -> Path | None:
    """Return the file that the worker watches, None outside of a task."""
    name = os.environ.get("DTS_CHECKPOINT_FILE")
    return Path(name) if name else None
