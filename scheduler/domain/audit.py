"""The audit log's chain: each seal covers a stretch of the log and holds the hash of the seal before it.

    hash(n) = SHA-256(hash(n-1) ‖ number ‖ first_seq ‖ last_seq ‖ rows ‖ sealed_at ‖ digest of the rows)

So no row under a seal can be changed, removed, added or moved without its digest changing, and no seal without every
later hash changing. Whoever may write everything can make a whole new chain, or cut off its end: against that helps
only a head (`number:hash`) that is kept elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256

import msgspec

GENESIS = bytes(32)
"""What stands in place of the hash before the first seal."""


class Seal(msgspec.Struct, frozen=True, kw_only=True):
    """One seal. `first_seq` to `last_seq`, both included, is what it covers: of these numbers, `rows` are used."""

    number: int
    first_seq: int
    last_seq: int
    rows: int
    digest: bytes
    hash: bytes
    sealed_at: datetime

    @property
    def head(self) -> str:
        """The seal as it is noted elsewhere."""
        return f"{self.number}:{self.hash.hex()}"


def seal_after(previous: Seal | None, last_seq: int, rows: int, digest: bytes, sealed_at: datetime) -> Seal:
    """Return the seal that follows `previous` and goes to `last_seq`."""
    number = 1 if previous is None else previous.number + 1
    first_seq = 1 if previous is None else previous.last_seq + 1
    before = GENESIS if previous is None else previous.hash
    text = f"{number} {first_seq} {last_seq} {rows} {sealed_at.timestamp():.6f} {digest.hex()}"
    return Seal(
        number=number,
        first_seq=first_seq,
        last_seq=last_seq,
        rows=rows,
        digest=digest,
        hash=sha256(before + text.encode()).digest(),
        sealed_at=sealed_at,
    )


def faults_of(previous: Seal | None, seal: Seal, rows: int, digest: bytes) -> Sequence[str]:
    """Say what is wrong with a seal, given the one before it and what stands in the log under it now."""
    expected = seal_after(previous, seal.last_seq, seal.rows, seal.digest, seal.sealed_at)
    if seal.number != expected.number:
        return [f"seal {expected.number} is missing"]
    stretch = f"rows {seal.first_seq} to {seal.last_seq}, sealed at {seal.sealed_at:%Y-%m-%dT%H:%M:%SZ}"
    faults = []
    if (seal.first_seq, seal.hash) != (expected.first_seq, expected.hash):
        faults.append(f"seal {seal.number} does not follow from the one before: it, or that one, was changed")
    if rows != seal.rows:
        faults.append(f"{stretch}: there were {seal.rows}, and now there are {rows}")
    elif digest != seal.digest:
        faults.append(f"{stretch}: at least one was changed")
    return faults
