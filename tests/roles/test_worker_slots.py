"""The slots of a worker."""

from __future__ import annotations

import anyio

from scheduler.domain.clock import SystemClock
from scheduler.worker.slots import Slots


async def test_everybody_who_waits_for_a_slot_hears_of_one() -> None:
    """Offers from Redis and claims from PostgreSQL wait at the same time."""
    slots = Slots(1, SystemClock())
    slots.take()
    woken = []

    async def wait() -> None:
        woken.append(await slots.wait_free(0.01))

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            group.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            slots.release()
    assert woken == [1, 1]
