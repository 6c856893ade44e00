"""Waiting for a state that another process or task will reach. Tests never wait for time."""

from __future__ import annotations

import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

T = TypeVar("T")
_INTERVAL = 0.01


async def until(predicate: Callable[[], T | Awaitable[T]], seconds: float = 30.0, what: str = "") -> T:
    """Return the first true thing that `predicate` (plain or async) returns; fail after `seconds`.

    What the predicate raises is taken as "not yet", and shown should it never get better.
    """
    deadline = time.monotonic() + seconds
    while True:
        last: object
        try:
            value = predicate()
            if inspect.isawaitable(value):
                value = await value
            if value:
                return value
            last = value
        except Exception as error:  # noqa: BLE001 - not yet
            last = error
        if time.monotonic() > deadline:
            _give_up(what, predicate, seconds, last)
        await anyio.sleep(_INTERVAL)


def until_sync(predicate: Callable[[], T], seconds: float = 30.0, what: str = "") -> T:
    """Do the same in a test that is not async."""
    deadline = time.monotonic() + seconds
    while True:
        last: object
        try:
            value = predicate()
            if value:
                return value
            last = value
        except Exception as error:  # noqa: BLE001 - not yet
            last = error
        if time.monotonic() > deadline:
            _give_up(what, predicate, seconds, last)
        time.sleep(_INTERVAL)


def _give_up(what: str, predicate: object, seconds: float, last: object) -> None:
    raise AssertionError(f"{what or predicate} did not come true within {seconds:g} s; last: {last!r}")
