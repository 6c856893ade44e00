"""Names of everything that the system keeps in Redis: one database of Redis per installation.

A lane's keys share its hash tag, so that a function may touch them all (also in a cluster).
"""

from __future__ import annotations

from functools import lru_cache

GROUP = b"workers"

LOCK = b"dts:lock"
"""String: the holder of the election lock."""
MARKER = b"dts:marker"
"""String `<installation>:<token>`: gone when everything was wiped."""
WORKERS = b"dts:workers"
"""Sorted set: worker → expiry of its heartbeat, in the server's milliseconds."""


@lru_cache(maxsize=4096)
def lane_keys(lane: str) -> tuple[bytes, ...]:
    """Return the lane's keys in the order in which every function takes them."""
    return tuple(f"dts:{{{lane}}}:{part}".encode() for part in ("ready", "seq", "stream", "credit", "open"))


def stream_key(lane: str) -> bytes:
    """Return the key of the lane's dispatch stream."""
    return lane_keys(lane)[2]


def open_key(lane: str) -> bytes:
    """Return the key that stands while the API may push new runs of the lane by itself."""
    return lane_keys(lane)[4]


def channel_key(channel: str) -> bytes:
    """Return the pub/sub channel that carries `channel`."""
    return f"dts:{channel}".encode()
