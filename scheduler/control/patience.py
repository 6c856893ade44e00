"""How long a step waits for the database before it takes it for away."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import anyio

from scheduler.store.database import StoreUnavailable


@contextmanager
def answer_within(seconds: float) -> Iterator[None]:
    """Take no answer in time for what it is: the database is away. Nothing is then known to be applied."""
    try:
        with anyio.fail_after(seconds):
            yield
    except TimeoutError as error:
        raise StoreUnavailable("no answer in time") from error
