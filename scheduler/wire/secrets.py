"""Secrets as they are sent and shown: a value goes in, and never out."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from scheduler.domain.task import Name

SHORTEST = 4
"""Characters of a value at least: anything shorter could not be taken out of what a command prints."""
LONGEST = 16_384


class NewSecret(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A secret to store. Where there is one of this name, the value becomes its next version."""

    name: Name
    value: Annotated[str, Meta(min_length=SHORTEST, max_length=LONGEST)]


class Secret(msgspec.Struct, kw_only=True, frozen=True):
    """A secret without its value. `key_id` names the master key that its own key is wrapped with."""

    name: str
    version: int
    key_id: str
    created_at: datetime
    created_by: str
    updated_at: datetime
    updated_by: str
