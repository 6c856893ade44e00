"""Hearing what is published, for tests."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream

from scheduler.broker import Broker


@asynccontextmanager
async def heard(broker: Broker, channel: str) -> AsyncIterator[MemoryObjectReceiveStream[bytes]]:
    """Whatever is published on the channel from now on. The broker's `run` has to be running."""
    send, receive = anyio.create_memory_object_stream[bytes](math.inf)
    listener = broker.listen(channel, send.send_nowait)
    with send, receive:
        try:
            await listener.active.wait()
            yield receive
        finally:
            broker.unlisten(listener)
