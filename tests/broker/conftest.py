from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from scheduler.broker import Broker
from tests.broker.support import connected
from tests.support.servers import ServerHandle


@pytest.fixture
async def broker(redis_url: str) -> AsyncIterator[Broker]:
    """A broker on an empty database of the shared server."""
    async with connected(redis_url) as broker:
        yield broker


@pytest.fixture
async def other(redis_url: str) -> AsyncIterator[Broker]:
    """Another process's broker on the same database."""
    async with connected(redis_url) as broker:
        yield broker


@pytest.fixture
async def own_broker(redis_server: ServerHandle) -> AsyncIterator[Broker]:
    """A broker on a server that the test may break."""
    async with connected(redis_server.url) as broker:
        yield broker
