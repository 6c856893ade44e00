"""Lanes: a worker that cannot satisfy a run must never receive it.

A lane is a queue of one namespace together with everything that a worker must offer: the executor and the required
labels. Limits that not every worker can enforce are required labels too, which such workers give themselves. Plain
work of the default namespace (executor `process`, nothing required) travels in the lane that bears the queue's own
name, so a worker reads it without having to learn of it first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import msgspec

from scheduler.domain.task import TaskSpec

PLAIN_EXECUTOR = "process"
DEFAULT_NAMESPACE = "default"
OWN_LABELS = "dts."
"""How labels begin that nobody but the worker itself gives to it."""
CPU_LIMIT = {f"{OWN_LABELS}limits.cpu": "cgroup"}
"""The label of workers that enforce `limits.cpu`."""


def lane_of(namespace: str, queue: str, executor: str, requires: Mapping[str, str]) -> str:
    """Return the lane's name: the queue, and for anything but plain default work `~` and 12 hex digits."""
    if namespace == DEFAULT_NAMESPACE and executor == PLAIN_EXECUTOR and not requires:
        return queue
    demands = msgspec.json.encode([namespace, executor, sorted(requires.items())])
    return f"{queue}~{hashlib.sha256(demands).hexdigest()[:12]}"


def lane_for(namespace: str, spec: TaskSpec) -> str:
    """Return the lane of a task's runs."""
    return lane_of(namespace, spec.queue, spec.executor, demands_of(spec))


def demands_of(spec: TaskSpec) -> Mapping[str, str]:
    """Return the labels that a worker must have: those that the task requires, and what its limits take."""
    return spec.requires if spec.limits.cpu is None else {**spec.requires, **CPU_LIMIT}


def satisfies(executors: frozenset[str], labels: Mapping[str, str], executor: str, requires: Mapping[str, str]) -> bool:
    """Say whether a worker with these executors and labels may read the lane of such a run."""
    return executor in executors and all(labels.get(key) == value for key, value in requires.items())
