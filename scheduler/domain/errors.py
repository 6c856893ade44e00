"""What can be wrong with a request, in terms of the domain; the API renders these as RFC 9457 problems."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec


class FieldError(msgspec.Struct, frozen=True):
    """One precise complaint: `pointer` is an RFC 6901 JSON pointer into the body, `detail` says what would be right."""

    pointer: str
    detail: str


class DomainError(Exception):
    """Base of every refusal that is the caller's to mend; nothing has been changed when one is raised."""


class InvalidInput(DomainError):
    """Well-formed, but it means something impossible; carries every complaint found, not just the first."""

    def __init__(self, errors: Sequence[FieldError]) -> None:
        super().__init__("; ".join(f"{e.pointer or '/'}: {e.detail}" for e in errors))
        self.errors = tuple(errors)


class NotFound(DomainError):
    """No such object (or none that the caller may see)."""

    def __init__(self, kind: str, key: object) -> None:
        super().__init__(f"no {kind} {key}")
        self.kind = kind
        self.key = str(key)


class Conflict(DomainError):
    """The object exists but its present state refuses the change; `code` is stable and machine-readable."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class PreconditionFailed(DomainError):
    """`If-Match` named another version than the stored one."""

    def __init__(self, expected: int, actual: int) -> None:
        super().__init__(f"the object is at version {actual}, not {expected}")
        self.expected = expected
        self.actual = actual


class Overloaded(DomainError):
    """Nothing was taken: too much is pending, or a dependency is away; `retry_after` is in seconds."""

    def __init__(self, detail: str, retry_after: float) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class Unauthenticated(DomainError):
    """Whoever asks has not shown who that is, or not in a way that holds."""


class Forbidden(DomainError):
    """Whoever asks is known and may not do this; `permission` is what was lacking, if it was one."""

    def __init__(self, detail: str, permission: str | None) -> None:
        super().__init__(detail)
        self.permission = permission


class TooMany(DomainError):
    """Asked too often; `retry_after` is in seconds."""

    def __init__(self, detail: str, retry_after: float) -> None:
        super().__init__(detail)
        self.retry_after = retry_after
