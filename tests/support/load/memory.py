"""How the memory of long-lived processes develops: samples, and their slope."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import psutil

from tests.support.cluster import Cluster

_MB = 1e6
Sample = tuple[float, float]
"""Seconds, and megabytes resident."""


def slope(samples: Sequence[Sample]) -> float:
    """Return megabytes per minute by least squares."""
    count = len(samples)
    mean_t = sum(t for t, _ in samples) / count
    mean_m = sum(m for _, m in samples) / count
    spread = sum((t - mean_t) ** 2 for t, _ in samples)
    return 60 * sum((t - mean_t) * (m - mean_m) for t, m in samples) / spread if spread else 0.0


class Memory:
    """Samples every process of every member; a process that was replaced begins anew."""

    def __init__(self, *, warm_up: float, least: float) -> None:
        self._warm_up = warm_up
        self._least = least
        self._samples: dict[tuple[str, int], list[Sample]] = defaultdict(list)

    def sample(self, cluster: Cluster, at: float) -> None:
        for member in cluster.members:
            for process in _own(cluster, member.name):
                with contextlib.suppress(psutil.NoSuchProcess):
                    kind = process.name().removeprefix("dts-")
                    self._samples[kind, process.pid].append((at, process.memory_info().rss / _MB))

    def write(self, path: Path) -> None:
        """Write every sample: seconds, role, process id, megabytes."""
        with path.open("w") as file:
            for (kind, pid), samples in self._samples.items():
                file.writelines(f"{at:.1f},{kind},{pid},{size:.3f}\n" for at, size in samples)

    def slopes(self) -> dict[str, tuple[float, float, int]]:
        """Return role → (worst slope in MB a minute, last size in MB, processes that lived long enough)."""
        found: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for (kind, _), samples in self._samples.items():
            warm = [sample for sample in samples if sample[0] >= samples[0][0] + self._warm_up]
            if warm and warm[-1][0] - warm[0][0] >= self._least:
                found[kind].append((slope(warm), warm[-1][1]))
        return {kind: (*max(values), len(values)) for kind, values in sorted(found.items())}


def _own(cluster: Cluster, name: str) -> list[psutil.Process]:
    """Return a member's processes without those of its commands."""
    member = next(member for member in cluster.members if member.name == name)
    with contextlib.suppress(psutil.NoSuchProcess, LookupError):
        first = psutil.Process(member.pid)
        return [first, member.worker] if member.role == "worker" else [first]
    return []
