"""What the worker role can be told; every duration is in seconds."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from scheduler.store.envelope import MasterKeys


class WorkerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Plain values, checked by whoever read them."""

    name: str = ""
    """What people call this worker; its host's name if empty."""

    queues: tuple[str, ...] = ("default",)
    concurrency: int = 0
    """Commands that run at once; 0 means four per processor."""

    labels: Mapping[str, str] = {}
    lease: float = 15.0
    """How long this worker must have been silent before its runs may be taken away; the same as the scheduler's."""

    drain_timeout: float = 30.0
    """How long running commands may go on after the worker was told to stop."""

    task_user: str = "nobody"
    """Who commands run as when the worker is root. Only if this is root may any command run as root."""

    state_dir: str = ""
    """Where files of running attempts go; a temporary directory if empty."""

    master_keys: MasterKeys | None = None
    """Opens the secrets that commands get; without it those that want one fail."""

    api_url: str = ""
    """What commands get as DTS_API_URL."""

    @property
    def slots(self) -> int:
        """The number of commands that run at once."""
        return self.concurrency or 4 * (os.cpu_count() or 1)
