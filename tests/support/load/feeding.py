"""Submitting at an even rate, and remembering what was acknowledged."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self
from uuid import UUID

import httpx2

from tests.support.chronos.stamps import stamping

_TICK = 0.25
_STAMPED_EVERY = 100
"""One task in so many stamps its execution; the others are as cheap as can be."""


class Feeder:
    """Submits `rate` tasks a second in batches, from a thread, while the block lasts. Refused ones are not repeated."""

    def __init__(
        self, url: Callable[[], str], rate: float, stamps: Path, *, ahead: Callable[[], bool] | None = None
    ) -> None:
        self.acknowledged: list[bytes] = []
        self.stamped: list[str] = []
        self.refused = 0
        self._url = url
        self._rate = rate
        self._ahead = ahead
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._plain = {"name": "load", "command": ["/bin/true"]}
        self._stamping = {"name": "stamped", "command": stamping(stamps, 0.2)}
        self._number = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        due, last = 0.0, time.monotonic()
        with httpx2.Client(timeout=10) as client:
            while not self._stop.wait(_TICK):
                now = time.monotonic()
                due, last = due + (now - last) * self._rate, now
                if self._ahead is not None and not self._ahead():
                    due = 0.0
                count, due = int(due), due % 1
                if count:
                    self._submit(client, min(count, 5000))

    def _submit(self, client: httpx2.Client, count: int) -> None:
        tasks: list[dict[str, Any]] = []
        for _ in range(count):
            self._number += 1
            tasks.append(self._stamping if self._number % _STAMPED_EVERY == 0 else self._plain)
        try:
            answer = client.post(f"{self._url()}/api/tasks/batch", json=tasks)
        except httpx2.HTTPError:  # whether it was taken is not known: nothing was promised
            self.refused += count
            return
        if answer.status_code != 201:
            self.refused += count
            return
        for task, item in zip(tasks, answer.json()["items"], strict=True):
            self.acknowledged.append(UUID(item["run_id"]).bytes)
            if task is self._stamping:
                self.stamped.append(item["run_id"])
