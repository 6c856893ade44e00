"""Calendars: when schedules do not fire."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import msgspec

from scheduler.api.context import Context, found
from scheduler.api.cursors import cursor_of, limit_of, page_answer
from scheduler.api.payloads import CalendarPage
from scheduler.api.requests import Request, decode
from scheduler.api.responses import Header, Reply, answer, etag, location, nothing
from scheduler.api.routing import PAGED, Route
from scheduler.domain.calendars import Calendar, NamedCalendar, check_calendar
from scheduler.domain.errors import Conflict, FieldError, InvalidInput, PreconditionFailed
from scheduler.domain.task import TaskSpec
from scheduler.wire.calendars import StoredCalendar

_named = msgspec.json.Decoder(NamedCalendar)
_calendar = msgspec.json.Decoder(Calendar)
_ANY_DAY = date(2000, 1, 1)


async def create_calendar(api: Context, request: Request) -> Reply:
    """Create a calendar."""
    request.demand_json()
    wanted = decode(_named, await request.body(api.settings.max_body, api.settings.body_timeout))
    check_calendar(wanted)
    contents = Calendar(timezone=wanted.timezone, dates=wanted.dates, ranges=wanted.ranges, weekly=wanted.weekly)
    if not await api.calendars.create(request.namespace, wanted.name, contents, request.actor):
        raise Conflict("name_taken", f"a calendar is already named {wanted.name!r}")
    return await _answer(api, request, wanted.name, 201, location("/api/calendars", wanted.name))


async def list_calendars(api: Context, request: Request) -> Reply:
    """List calendars by name."""
    request.allow_query("limit", "cursor")
    return page_answer(request, await api.calendars.page(request.namespace, cursor_of(request, str), limit_of(request)))


async def get_calendar(api: Context, request: Request) -> Reply:
    """Return one calendar."""
    return await _answer(api, request, request.params["name"], 200)


async def put_calendar(api: Context, request: Request) -> Reply:
    """Store what a calendar holds from now on; it is created if there is none."""
    request.demand_json()
    wanted = decode(_calendar, await request.body(api.settings.max_body, api.settings.body_timeout))
    name = request.params["name"]
    check_calendar(wanted)
    check_calendar(NamedCalendar(name=name, dates=[_ANY_DAY]))
    expected = request.if_match()
    async with api.database.transaction() as executor:
        version = await api.calendars.put(executor, request.namespace, name, wanted, request.actor, expected)
        if version is None:
            raise await _at_another_version(api, request, name, expected)
    request.note(version_before=version - 1 or None)
    return await _answer(api, request, name, 200)


async def delete_calendar(api: Context, request: Request) -> Reply:
    """Delete a calendar that no recurring task keeps to."""
    name, expected = request.params["name"], request.if_match()
    async with api.database.transaction() as executor:
        if users := await api.calendars.users(executor, request.namespace, name):
            names = ", ".join(repr(user) for user in users)
            raise Conflict("in_use", f"recurring tasks keep to it: {names}")
        version = await api.calendars.delete(executor, request.namespace, name, expected)
        if version is None:
            raise await _at_another_version(api, request, name, expected)
    request.note(version_before=version)
    return nothing()


async def refuse_unknown_calendars(api: Context, namespace: str, specs: Sequence[TaskSpec], at: str) -> None:
    """Raise InvalidInput if a task names a calendar that does not exist; `at` is the pointer of a task in the body."""
    missing = await api.calendars.missing(namespace, {name for spec in specs for name in spec.calendars})
    if missing:
        raise InvalidInput(
            [
                FieldError(f"{at.format(index=index)}/calendars/{n}", f"there is no calendar {name!r}")
                for index, spec in enumerate(specs)
                for n, name in enumerate(spec.calendars)
                if name in missing
            ][:100]
        )


async def _at_another_version(api: Context, request: Request, name: str, expected: int | None) -> PreconditionFailed:
    """Return what refuses a change of a calendar that is not as expected. Raises NotFound if there is none."""
    stored = found(await api.calendars.get(request.namespace, name), "calendar", name)
    return PreconditionFailed(expected or 0, stored.version)


async def _answer(api: Context, request: Request, name: str, status: int, *headers: Header) -> Reply:
    calendar = found(await api.calendars.get(request.namespace, name), "calendar", name)
    return answer(calendar, status, (etag(calendar.version), *headers))


_CALENDAR = {
    "name": "holidays",
    "timezone": "Europe/Berlin",
    "dates": ["2026-12-25"],
    "weekly": [{"days": ["sat", "sun"]}],
}

ROUTES: tuple[Route, ...] = (
    Route(
        method="POST",
        path="/api/calendars",
        permission="task:write",
        handler=create_calendar,
        summary="Create a calendar of times at which schedules do not fire",
        tag="calendars",
        request=NamedCalendar,
        example=_CALENDAR,
        responses={201: StoredCalendar},
        errors=(408, 409, 413, 415, 422),
    ),
    Route(
        method="GET",
        path="/api/calendars",
        permission="task:read",
        handler=list_calendars,
        summary="List calendars",
        tag="calendars",
        query=PAGED,
        responses={200: CalendarPage},
        errors=(422,),
    ),
    Route(
        method="GET",
        path="/api/calendars/{name}",
        permission="task:read",
        handler=get_calendar,
        summary="Read a calendar",
        tag="calendars",
        responses={200: StoredCalendar},
        errors=(404,),
    ),
    Route(
        method="PUT",
        path="/api/calendars/{name}",
        permission="task:write",
        handler=put_calendar,
        summary="Store what a calendar holds; it is created if there is none",
        tag="calendars",
        request=Calendar,
        example={"dates": ["2026-12-25", "2026-12-26"]},
        responses={200: StoredCalendar},
        errors=(404, 408, 412, 413, 415, 422),
    ),
    Route(
        method="DELETE",
        path="/api/calendars/{name}",
        permission="task:write",
        handler=delete_calendar,
        summary="Delete a calendar that no recurring task keeps to",
        tag="calendars",
        responses={204: None},
        errors=(404, 409, 412),
    ),
)
