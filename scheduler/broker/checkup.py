"""What Redis or Valkey says of itself, for `dts doctor`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import redis.asyncio
from redis.exceptions import RedisError

from scheduler.broker.errors import BrokerUnavailable, BrokerUnfit
from scheduler.broker.server import QUESTIONS, ServerInfo
from scheduler.domain.checkup import RedisFacts
from scheduler.domain.clock import Clock

_PATIENCE = 5.0  # seconds


async def examine(url: str, clock: Clock) -> RedisFacts:
    """Ask the server. Raises BrokerUnavailable."""
    client = redis.asyncio.Redis.from_url(url, socket_timeout=_PATIENCE, socket_connect_timeout=_PATIENCE)
    client.response_callbacks.clear()  # replies as they come: we read them ourselves
    ask: Callable[..., Awaitable[Any]] = client.execute_command
    try:
        info = ServerInfo.parse([await ask(*question) for question in QUESTIONS])
        before = clock.now().timestamp()
        seconds, micros = await ask("TIME")
        after = clock.now().timestamp()
    except (RedisError, OSError) as error:
        raise BrokerUnavailable(str(error)) from error
    finally:
        await client.aclose()
    unfit = ""
    try:
        info.check()
    except BrokerUnfit as problem:
        unfit = str(problem)
    return RedisFacts(
        product=info.product,
        version=".".join(map(str, info.version)),
        unfit=unfit,
        apart=int(seconds) + int(micros) / 1e6 - (before + after) / 2,
        doubt=(after - before) / 2,
    )
