"""What the audit log tells."""

from __future__ import annotations

from datetime import datetime

import msgspec


class AuditEntry(msgspec.Struct, kw_only=True, frozen=True):
    """One change, or refusals (`status` 401 or 403) of one kind that came within a minute.

    `action` is the operation's id in the OpenAPI document, `object` the id or name of what it was about, `count` how
    many objects were changed, or requests refused. `namespace` is null where no namespace is concerned.
    """

    seq: int
    at: datetime
    namespace: str | None
    actor: str
    action: str
    object: str | None
    request_id: str
    status: int
    version_before: int | None
    version_after: int | None
    count: int
    address: str | None
