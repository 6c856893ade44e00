from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from scheduler.broker import Broker
from tests.broker.support import connected


@pytest.fixture
async def broker(redis_url: str) -> AsyncIterator[Broker]:
    """A broker on an empty database of the shared server, of the installation that the tests' leaders belong to."""
    async with connected(redis_url, installation="test") as broker:
        yield broker
