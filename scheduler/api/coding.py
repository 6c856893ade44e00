"""gzip, both ways: requests that come compressed, and answers that are worth it.

A request is unpacked no further than its body may be long, whatever it claims: a bomb costs us `limit` bytes and the
time to make them. What is long is packed and unpacked in a thread, for zlib lets others run meanwhile.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from typing import Final

import anyio.to_thread
from starlette.responses import Response

from scheduler.api.problems import Refusal, malformed
from scheduler.api.responses import Reply

_GZIP: Final = 16 + zlib.MAX_WBITS
_LEVEL: Final = 1  # three times as fast as the default level, for a fifth more bytes
_WORTH_IT: Final = 1024  # bytes: below, a packet is a packet
_LONG: Final = 64 * 1024  # bytes that take about a millisecond
_TEXT: Final = (b"application/json", b"application/problem+json", b"text/")
_TOKEN: Final = re.compile(r"\s*([\w*.-]+)\s*(?:;\s*q\s*=\s*([01](?:\.\d{0,3})?)\s*)?")


async def unpack(data: bytes, coding: str, limit: int) -> bytes:
    """Return a request's body as it was before it was coded. Raises a 413, 415 or 400 Refusal."""
    if coding in ("", "identity"):
        return data
    if coding not in ("gzip", "x-gzip"):
        detail = f"a body may be coded by gzip, or not at all, but not by {coding[:50]}"
        raise Refusal(415, "unsupported-media-type", detail, headers=[(b"accept-encoding", b"gzip")])
    if len(data) < _LONG:
        return _unpack(data, limit)
    return await anyio.to_thread.run_sync(_unpack, data, limit)


def _unpack(data: bytes, limit: int) -> bytes:
    unpacker = zlib.decompressobj(_GZIP)
    try:
        plain = unpacker.decompress(data, limit + 1)
    except zlib.error as error:
        raise malformed(f"the body is no gzip: {error}") from None
    if len(plain) > limit:
        raise Refusal(413, "too-large", f"the body may have {limit} bytes at most, unpacked")
    if not unpacker.eof or unpacker.unused_data:
        raise malformed("the body has to be one whole gzip stream")
    return plain


async def pack(response: Response, headers: Mapping[bytes, bytes]) -> None:
    """Compress an answer if it is long, is text, and the client takes gzip."""
    if not isinstance(response, Reply) or len(response.body) < _WORTH_IT or not _is_text(response):
        return
    response.raw_headers.append((b"vary", b"accept-encoding"))
    if not takes_gzip(headers.get(b"accept-encoding", b"")):
        return
    body = bytes(response.body)
    packed = _pack(body) if len(body) < _LONG else await anyio.to_thread.run_sync(_pack, body)
    response.body = packed
    response.raw_headers = [
        *(header for header in response.raw_headers if header[0] != b"content-length"),
        (b"content-length", b"%d" % len(packed)),
        (b"content-encoding", b"gzip"),
    ]


def _pack(data: bytes) -> bytes:
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
    return packer.compress(data) + packer.flush()


def _is_text(response: Reply) -> bool:
    return any(name == b"content-type" and value.startswith(_TEXT) for name, value in response.raw_headers)


def takes_gzip(accepted: bytes) -> bool:
    """Say whether an Accept-Encoding header allows gzip."""
    if not accepted:
        return False
    any_other = False
    for part in accepted.decode("latin-1").split(","):
        match = _TOKEN.fullmatch(part)
        if match is None:
            continue
        allowed = match[2] is None or float(match[2]) > 0
        if match[1].lower() in ("gzip", "x-gzip"):
            return allowed
        if match[1] == "*":
            any_other = allowed
    return any_other
