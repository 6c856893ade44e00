"""Bodies of requests, as bytes before any clock starts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

TRUE = ["/bin/true"]


def task(name: str = "bench", command: Sequence[str] = TRUE, **fields: Any) -> dict[str, Any]:
    """Return one task."""
    return {"name": name, "command": list(command), **fields}


def one(body: dict[str, Any]) -> bytes:
    """Return the body of a single submit."""
    return msgspec.json.encode(body)


def batches(tasks: Sequence[dict[str, Any]], size: int) -> list[bytes]:
    """Return bodies of batch submits, `size` tasks each."""
    return [msgspec.json.encode(part) for part in _parts(tasks, size)]


def _parts(tasks: Sequence[dict[str, Any]], size: int) -> Iterator[Sequence[dict[str, Any]]]:
    for start in range(0, len(tasks), size):
        yield tasks[start : start + size]
