from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from scheduler.store.database import Database
from tests.roles.api.access_support import Closed, closed_api
from tests.roles.api.support import Client, FakeWorker, running_api, running_worker


@pytest.fixture
async def api(database: Database, redis_url: str) -> AsyncIterator[Client]:
    """An API in this process."""
    async with running_api(database, redis_url) as client:
        yield client


@pytest.fixture
async def worker(database: Database) -> AsyncIterator[FakeWorker]:
    """A worker that claims and reports what the test says."""
    async with running_worker(database) as fake:
        yield fake


@pytest.fixture
async def closed(database: Database, redis_url: str) -> AsyncIterator[Closed]:
    """An API in this process that asks for credentials."""
    async with closed_api(database, redis_url) as running:
        yield running
