"""Reading the audit log, without I/O."""

from __future__ import annotations

from scheduler.client.pages import Listing
from scheduler.wire.audit import AuditEntry


def audit(
    *,
    every_namespace: bool = False,
    actor: str | None = None,
    action: str | None = None,
    object: str | None = None,  # noqa: A002 - what the interface calls it
    denied: bool | None = None,
    page: int | None = None,
) -> Listing[AuditEntry]:
    """List who changed what and who was refused, newest first; `denied` asks for only the one or the other."""
    return Listing(
        "/api/audit",
        AuditEntry,
        {
            "namespace": "*" if every_namespace else None,
            "actor": actor,
            "action": action,
            "object": object,
            "denied": None if denied is None else str(denied).lower(),
            "limit": page,
        },
    )
