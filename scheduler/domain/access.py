"""Who asks, and what that one may do: permissions, the roles that bundle them, and namespaces.

A permission is `what:deed`. A role is a set of permissions, each containing the one below it; a key or a token may hold
further permissions beside its role. Running a command that somebody defined (`run:control`) and defining one
(`command:define`) are different permissions: who may start the nightly backup need not be able to run anything at all.

A principal sees the objects of its namespaces and nothing of others. What concerns the installation as a whole is for
principals that are not confined to some of them.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from typing import Literal, TypeAlias, get_args
from uuid import UUID

import msgspec

from scheduler.domain.errors import FieldError, Forbidden
from scheduler.domain.task import TaskSpec

DEFAULT_NAMESPACE = "default"
EVERY_NAMESPACE = "*"
"""How `namespaces` of a key says that it holds in all of them."""

Permission: TypeAlias = Literal[
    "task:read",
    "run:read",
    "log:read",
    "fleet:read",
    "event:read",
    "namespace:read",
    "health:read",
    "run:control",
    "task:control",
    "queue:control",
    "event:publish",
    "task:write",
    "command:define",
    "checkpoint:write",
    "key:manage",
    "secret:manage",
    "audit:read",
    "worker:control",
    "namespace:manage",
    "metrics:read",
    "system:control",
]
Open: TypeAlias = Literal["open"]
OPEN: Open = "open"
"""In place of a permission: for everybody, known or not."""

Role: TypeAlias = Literal["viewer", "operator", "editor", "admin"]

PERMISSIONS: tuple[Permission, ...] = get_args(Permission)
ROLES: tuple[Role, ...] = get_args(Role)

INSTALLATION: frozenset[Permission] = frozenset(
    {"worker:control", "namespace:manage", "metrics:read", "system:control"}
)
"""What these allow concerns every namespace at once: nobody who is confined to some holds them."""

_VIEWER: frozenset[Permission] = frozenset(
    {"task:read", "run:read", "log:read", "fleet:read", "event:read", "namespace:read", "health:read"}
)
_OPERATES: frozenset[Permission] = frozenset({"run:control", "task:control", "queue:control", "event:publish"})
_EDITS: frozenset[Permission] = frozenset({"task:write", "command:define", "checkpoint:write"})

GRANTS: dict[Role, frozenset[Permission]] = {
    "viewer": _VIEWER,
    "operator": _VIEWER | _OPERATES,
    "editor": _VIEWER | _OPERATES | _EDITS,
    "admin": frozenset(PERMISSIONS),
}
"""What each role holds."""

_DEFINING = ("command", "env", "executor", "user", "workdir", "stdin")


class RunScope(msgspec.Struct, frozen=True):
    """The one attempt that a run token speaks for."""

    run_id: UUID
    fence: int


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks. `name` is written down as the actor of every change.

    `kind` says by what it is known, `id` which key or token that is (empty where there is none). `namespaces` None
    means every one. `run` confines it to one attempt's own routes, whatever its permissions say. `until` is Unix time.
    """

    name: str
    kind: Literal["anonymous", "development", "key", "jwt", "run"]
    id: str = ""
    permissions: frozenset[Permission] = frozenset()
    namespaces: frozenset[str] | None = frozenset()
    run: RunScope | None = None
    until: float = math.inf

    def demand(self, permission: Permission) -> None:
        """Raise Forbidden unless this principal holds the permission."""
        if permission not in self.permissions:
            raise Forbidden(f"this needs the permission {permission}", permission)

    def sees(self, namespace: str) -> bool:
        """Say whether a namespace is one of this principal's."""
        return self.namespaces is None or namespace in self.namespaces


ANONYMOUS = Principal(name="anonymous", kind="anonymous")
"""Somebody of whom nothing is known; may do nothing that is not open to everybody."""

DEVELOPER = Principal(name="anonymous", kind="development", permissions=frozenset(PERMISSIONS), namespaces=None)
"""Everybody on this machine, where a server runs in development mode."""


def granted(
    role: Role | None, permissions: Iterable[Permission], namespaces: Iterable[str] | None
) -> frozenset[Permission]:
    """Return what a role and further permissions amount to within these namespaces (None: all)."""
    held = frozenset(permissions) | (GRANTS[role] if role is not None else frozenset())
    return held if namespaces is None else held - INSTALLATION


def may_grant(
    principal: Principal, role: Role | None, permissions: Iterable[Permission], namespaces: Collection[str] | None
) -> list[FieldError]:
    """Return what is wrong with making a key that holds this: nobody gives away what they do not hold themselves."""
    wrong = []
    lacking = granted(role, (), namespaces) - principal.permissions
    if role is not None and lacking:
        wrong.append(FieldError("/role", f"holds what you do not hold: {', '.join(sorted(lacking))}"))
    wrong += [
        FieldError(f"/permissions/{index}", f"you do not hold {permission} yourself")
        for index, permission in enumerate(permissions)
        if permission not in principal.permissions
    ]
    if namespaces is None and principal.namespaces is not None:
        wrong.append(FieldError("/namespaces", "you are confined to some namespaces, and so are the keys you make"))
    wrong += [
        FieldError("/namespaces", f"{name} is not one of your namespaces")
        for name in sorted(namespaces or ())
        if not principal.sees(name)
    ]
    return wrong


def namespace_for(principal: Principal, wanted: str | None) -> str:
    """Return the namespace that a request is about: the one it names, else the principal's only one, else `default`.

    Raises Forbidden for a namespace that is not the principal's, in the same words whether there is such a one or not.
    """
    own = principal.namespaces
    if wanted is not None:
        if own is not None and wanted not in own:
            raise Forbidden("the namespace asked for is not one of yours", None)
        return wanted
    if own is None or DEFAULT_NAMESPACE in own:
        return DEFAULT_NAMESPACE
    if len(own) == 1:
        return next(iter(own))
    raise Forbidden("say which of your namespaces this is about: DTS-Namespace", None)


def defines_command(old: TaskSpec, new: TaskSpec) -> bool:
    """Say whether an edit changes what is executed or as whom, and so needs `command:define`."""
    return any(getattr(old, field) != getattr(new, field) for field in _DEFINING)
