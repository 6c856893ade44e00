"""The asynchronous client: sends what the operations ask for over `httpx2.AsyncClient`."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from typing import Self, TypeVar

import anyio
import httpx2
import msgspec

from scheduler.client import DEFAULT_SERVER
from scheduler.client.access import Access
from scheduler.client.exchange import Fault, Heard, Id, Listen, Operation, Pause, Reply, Request, with_retries
from scheduler.client.logs import LogEvent, LogStream
from scheduler.client.methods import Methods
from scheduler.client.pages import Listing
from scheduler.client.retry import RetryPolicy
from scheduler.client.transport import arguments, fault_of, options, reply_of

T = TypeVar("T")


class AsyncClient(Methods):
    """Talks to one server, on asyncio. Use it as an async context manager, or call `close`.

    Every method raises ApiError when the server refuses and Unreachable when it does not answer. `timeout` in
    seconds bounds each step of a request: connecting, sending, and each silence while answering. `server` is its
    URL, or an `Access` that also says which certificates to trust; `namespace` is the key's own unless given.
    """

    def __init__(
        self,
        server: str | Access = DEFAULT_SERVER,
        *,
        api_key: str | None = None,
        namespace: str | None = None,
        timeout: float = 30.0,
        retries: RetryPolicy | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        access = server if isinstance(server, Access) else Access(server=server, api_key=api_key, namespace=namespace)
        self.server = access.server
        self._retries = retries or RetryPolicy()
        self._http = httpx2.AsyncClient(transport=transport, **options(access, timeout))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection."""
        await self._http.aclose()

    async def stream_logs(
        self, run_id: Id, *, attempt: int | None = None, stream: str | None = None
    ) -> AsyncIterator[LogEvent]:
        """Yield a run's output as it comes, until the run has ended; goes on where it was when cut off.

        It begins with the newest attempt, or the given one; `stream` leaves out what is not of `stdout` or `stderr`.
        """
        follower = LogStream(run_id, attempt=attempt, stream=stream, policy=self._retries)
        while True:
            why: Reply | Fault = Fault(sent=True, detail="the stream ended early")
            try:
                async with self._http.stream(**arguments(follower.request())) as response:
                    if response.is_success:
                        async for data in response.aiter_bytes():
                            for chunk in follower.feed(data):
                                yield chunk
                    else:
                        await response.aread()
                        why = reply_of(response)
            except httpx2.HTTPError as error:
                why = fault_of(error)
            if follower.finished:
                return
            await anyio.sleep(follower.cut_off(why, random.random()))  # noqa: S311 - jitter

    async def run_operation(self, operation: Operation[T]) -> T:
        """Run an operation, such as those that `scheduler.client.methods` names, to its end."""
        exchange = with_retries(operation, self._retries, random.random)
        try:
            step = next(exchange)
            while True:
                step = exchange.send(await self._perform(step))
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            exchange.close()

    async def walk(self, listing: Listing[T]) -> AsyncIterator[T]:
        """Yield the items of all pages of a listing."""
        while not listing.finished:
            for item in await self.run_operation(listing.next_page()):
                yield item

    async def _perform(self, step: Request | Pause | Listen) -> Reply | Fault | Heard | float:
        if isinstance(step, Pause):
            await anyio.sleep(step.seconds)
            return anyio.current_time()
        if isinstance(step, Listen):
            opened = await self._listen(step)
            return Heard(anyio.current_time(), opened)
        try:
            return reply_of(await self._http.request(**arguments(step)))
        except httpx2.HTTPError as error:
            return fault_of(error)

    async def _listen(self, step: Listen) -> bool:
        """Feed what a stream brings; return whether it was there."""
        request = msgspec.structs.replace(step.request, timeout=max(0.05, step.seconds))
        opened = False
        try:
            with anyio.move_on_after(step.seconds):
                async with self._http.stream(**arguments(request)) as response:
                    opened = response.is_success
                    if opened:
                        async for data in response.aiter_bytes():
                            if step.feed(data):
                                break
        except httpx2.HTTPError:
            pass  # whoever listens looks again by itself
        return opened
