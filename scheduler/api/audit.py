"""Reading the audit log."""

from __future__ import annotations

from scheduler.api.context import Context
from scheduler.api.cursors import cursor_of, limit_of, page_answer
from scheduler.api.payloads import AuditPage
from scheduler.api.requests import Request
from scheduler.api.responses import Reply
from scheduler.api.routing import PAGED, Query, Route
from scheduler.domain.access import EVERY_NAMESPACE
from scheduler.domain.errors import FieldError, Forbidden, InvalidInput
from scheduler.store.audit import AuditFilter


async def list_audit(api: Context, request: Request) -> Reply:
    """List what was changed and refused, newest first."""
    request.allow_query("namespace", "actor", "action", "object", "denied", "limit", "cursor")
    query = request.query
    if (everywhere := query.get("namespace")) is not None:
        if everywhere != EVERY_NAMESPACE:
            raise InvalidInput([FieldError("?namespace", f'must be "{EVERY_NAMESPACE}", or DTS-Namespace name one')])
        if request.principal.namespaces is not None:
            raise Forbidden("this needs a key that holds in every namespace", None)
    wanted = AuditFilter(
        actor=query.get("actor"),
        action=query.get("action"),
        object=query.get("object"),
        denied=request.convert("denied", bool),
    )
    namespace = None if everywhere else request.namespace
    return page_answer(request, await api.audit.page(namespace, wanted, cursor_of(request, int), limit_of(request)))


ROUTES: tuple[Route, ...] = (
    Route(
        method="GET",
        path="/api/audit",
        permission="audit:read",
        handler=list_audit,
        summary="Who changed what, and who was refused",
        tag="access",
        query=(
            Query("namespace", str, "`*`: of every namespace, and what concerns none (default: the request's)."),
            Query("actor", str, "Only what this one did, such as `key:ci`."),
            Query("action", str, "Only this operation, such as `create_task`."),
            Query("object", str, "Only what concerns this id or name."),
            Query("denied", bool, "Only refusals, or only changes."),
            *PAGED,
        ),
        responses={200: AuditPage},
        errors=(422,),
    ),
)
