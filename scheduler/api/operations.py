"""What an operator does to this very process."""

from __future__ import annotations

import msgspec

from scheduler import telemetry
from scheduler.api.context import Context
from scheduler.api.requests import Request, decode
from scheduler.api.responses import Reply, answer
from scheduler.api.routing import Route
from scheduler.telemetry import get_logger
from scheduler.wire.bulk import LogLevel

_level = msgspec.json.Decoder(LogLevel)
_log = get_logger("api")


async def set_log_level(api: Context, request: Request) -> Reply:
    """Change how much the API process that answers this says in its log, until it is started again."""
    request.demand_json()
    wanted = decode(_level, await request.body(api.settings.max_body, api.settings.body_timeout))

    async def change() -> None:
        telemetry.set_level(wanted.level)
        _log.warning("log level changed", level=wanted.level, actor=request.actor)

    await api.database.once_committed(change)
    request.note(object=wanted.level)
    return answer(wanted)


ROUTES: tuple[Route, ...] = (
    Route(
        method="PUT",
        path="/api/log-level",
        permission="system:control",
        handler=set_log_level,
        summary="Change how much this process logs",
        tag="operations",
        request=LogLevel,
        example={"level": "debug"},
        responses={200: LogLevel},
        errors=(408, 413, 415),
    ),
)
