"""Group commit: whatever waits when the previous flush returns goes into the next one.

An idle system flushes a single item at once; a busy one batches by itself, because items gather while a flush is under
way. Where a statement costs far more than a row of it, `spacing` keeps busy flushes apart: after a batch of `_BUSY`
items or more the next starts `spacing` seconds after this one did, after a smaller batch sooner in proportion. Single
items so wait for next to nothing. Once `_BUSY` items come in `spacing` seconds, batches grow until each holds all that
come in that time; where fewer come, they shrink to what comes during a flush.

One bad item cannot fail its neighbours: a batch that the database refuses is split in
halves until the refusal stands alone. Deadlocks and serialisation failures are run again, since nothing was applied.
A batch that took too long fails as a whole: halves of it would wait for the same lock again, one after the other.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

import anyio
import asyncpg

from scheduler.service import sleep
from scheduler.store.database import RETRYABLE, StoreUnavailable

Item = TypeVar("Item")
Result = TypeVar("Result")
Flush = Callable[[Sequence[Item]], Awaitable[Sequence[Result]]]

_ATTEMPTS = 5
_BUSY = 8


class GroupCommit(Generic[Item, Result]):
    """Coalesces `submit` calls into `flush(items) -> results` (one result per item, in order).

    Start `run` once for each connection that may flush at the same time, with a flush over that one. A submitter that
    is cancelled before its item is taken withdraws it; once taken, the item is written whether or not anybody waits.
    """

    def __init__(
        self,
        flush: Flush[Item, Result],
        *,
        max_batch: int = 1000,
        spacing: float = 0.0,
    ) -> None:
        self._flush = flush
        self._spacing = spacing
        self._max_batch = max_batch
        self._waiting: deque[tuple[Item, asyncio.Future[Result]]] = deque()
        self._arrived = asyncio.Event()

    @property
    def backlog(self) -> int:
        """How many items wait for the next flush."""
        return len(self._waiting)

    async def submit(self, item: Item) -> Result:
        """Return the item's own result once its flush has committed; raises what its flush raised."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        self._arrived.set()
        return await future

    async def run(self, flush: Flush[Item, Result] | None = None) -> None:
        """Flush until cancelled; a flush under way is finished first, so that nobody is left without an answer.

        `flush` takes the place of the usual one in this loop.
        """
        flush = flush or self._flush
        try:
            not_before = 0.0
            while True:
                if not self._waiting:
                    self._arrived.clear()
                    await self._arrived.wait()
                if (early := not_before - anyio.current_time()) > 0:
                    await sleep(early)
                batch = self._take()
                not_before = anyio.current_time() + self._spacing * min(1.0, len(batch) / _BUSY)
                if batch:
                    with anyio.CancelScope(shield=True):
                        await self._settle(flush, batch)
                await anyio.lowlevel.checkpoint_if_cancelled()
        finally:
            self._fail(list(self._waiting), StoreUnavailable("this process is stopping"))
            self._waiting.clear()

    def _take(self) -> list[tuple[Item, asyncio.Future[Result]]]:
        batch: list[tuple[Item, asyncio.Future[Result]]] = []
        while self._waiting and len(batch) < self._max_batch:
            entry = self._waiting.popleft()
            if not entry[1].done():
                batch.append(entry)
        return batch

    async def _settle(self, flush: Flush[Item, Result], batch: list[tuple[Item, asyncio.Future[Result]]]) -> None:
        try:
            results = await self._flush_with_retry(flush, [item for item, _ in batch])
        except (StoreUnavailable, asyncpg.QueryCanceledError) as error:
            self._fail(batch, error)
        except Exception as error:  # noqa: BLE001  # handed to whoever submitted the item
            if len(batch) == 1:
                self._fail(batch, error)
                return
            middle = len(batch) // 2
            await self._settle(flush, batch[:middle])
            await self._settle(flush, batch[middle:])
        else:
            for (_, future), result in zip(batch, results, strict=True):
                if not future.done():
                    future.set_result(result)

    @staticmethod
    async def _flush_with_retry(flush: Flush[Item, Result], items: list[Item]) -> Sequence[Result]:
        for _ in range(_ATTEMPTS - 1):
            try:
                return await flush(items)
            except RETRYABLE:
                continue
        return await flush(items)

    @staticmethod
    def _fail(batch: list[tuple[Item, asyncio.Future[Result]]], error: Exception) -> None:
        for _, future in batch:
            if not future.done():
                future.set_exception(error)
