"""Lanes: a worker that cannot satisfy a run must never receive it.

A lane is a queue of one namespace together with everything that a worker must offer: the executor and the required
labels. Plain work of the default namespace (executor `process`, nothing required) travels in the lane that bears the
queue's own name, so a worker reads it without having to learn of it first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import msgspec

PLAIN_EXECUTOR = "process"
DEFAULT_NAMESPACE = "default"


def lane_of(namespace: str, queue: str, executor: str, requires: Mapping[str, str]) -> str:
    """Return the lane's name: the queue, and for anything but plain default work `~` and 12 hex digits."""
    if namespace == DEFAULT_NAMESPACE and executor == PLAIN_EXECUTOR and not requires:
        return queue
    demands = msgspec.json.encode([namespace, executor, sorted(requires.items())])
    return f"{queue}~{hashlib.sha256(demands).hexdigest()[:12]}"


def satisfies(executors: frozenset[str], labels: Mapping[str, str], executor: str, requires: Mapping[str, str]) -> bool:
    """Say whether a worker with these executors and labels may read the lane of such a run."""
    return executor in executors and all(labels.get(key) == value for key, value in requires.items())
