"""The dispatch message: msgpack `[v, run_id, seq, traceparent]` in field `m` of a lane's stream.

It carries ids only. A worker treats Redis as hostile: whatever it reads there, the command comes from PostgreSQL
together with the claim.
"""

from __future__ import annotations

from uuid import UUID

import msgspec

VERSION = 1
FIELD = b"m"


class Dispatch(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One offer of a queued run; `seq` is the run's `dispatch_seq` at the time of the offer."""

    v: int
    run_id: UUID
    seq: int
    traceparent: str | None = None


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Dispatch)


def encode(message: Dispatch) -> bytes:
    """Return the bytes that stand in the stream."""
    return _encoder.encode(message)


def decode(data: bytes) -> Dispatch | None:
    """Return the message, or None for rubbish or for a version from the future."""
    try:
        message = _decoder.decode(data)
    except msgspec.DecodeError:
        return None
    return message if message.v == VERSION else None
