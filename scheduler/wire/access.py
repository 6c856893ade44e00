"""API keys and namespaces as they are made and shown."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from scheduler.domain.access import Permission, Role
from scheduler.domain.task import Duration, Moment

NamespaceName = Annotated[str, Meta(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(?![\s\S])")]


class NewKey(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A key to make: what it may do, in which namespaces (`["*"]`: in every one; absent: in the request's own).

    It cannot be given what its maker does not hold. `expires_at` or `expires_in`, or it holds until it is revoked.
    """

    name: Annotated[str, Meta(min_length=1, max_length=100)]
    role: Role | None = None
    permissions: list[Permission] = []
    namespaces: Annotated[list[str], Meta(min_length=1, max_length=100)] | None = None
    expires_at: Moment | None = None
    expires_in: Duration | None = None


class Key(msgspec.Struct, kw_only=True, frozen=True):
    """A key as it is shown, without its secret. `last_used_at` may be a minute behind."""

    id: str
    name: str
    role: Role | None
    permissions: list[Permission]
    namespaces: list[str]
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    last_used_at: datetime | None


class IssuedKey(Key, kw_only=True, frozen=True):
    """A new key, with its text: this is the only time that it is shown."""

    key: str


class Quotas(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What a namespace may have; null: as much as the installation.

    `max_pending` bounds the runs that wait, `max_tasks` the recurring tasks and workflows, `submit_rate` the runs a
    second that are taken, of which as many as ten seconds' worth may come at once.
    """

    max_pending: Annotated[int, Meta(ge=1, le=1 << 53)] | None = None
    max_tasks: Annotated[int, Meta(ge=1, le=1 << 53)] | None = None
    submit_rate: Annotated[float, Meta(gt=0, le=1e9)] | None = None


class NewNamespace(Quotas, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A namespace to make."""

    name: NamespaceName


class Namespace(Quotas, kw_only=True, frozen=True):
    """A namespace as it is shown."""

    name: str
    created_at: datetime
    created_by: str
