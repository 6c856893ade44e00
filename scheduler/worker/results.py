"""What a command wrote to `$DTS_OUTPUT_FILE`, as JSON for the store."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from scheduler.domain.redaction import redacted

MAX_OUTPUTS = 256 * 1024
"""Bytes of outputs at most."""


class InvalidOutputs(ValueError):
    """The file says nothing that can be stored; the text says why."""


def parse_outputs(text: bytes, needles: Sequence[bytes] = ()) -> bytes | None:
    """Return a JSON object from `key=value` lines or from JSON; None from nothing but blanks. Raises InvalidOutputs.

    NUL characters are refused, since PostgreSQL cannot store them. `needles` are secrets that must not be stored.
    """
    if not text.strip():
        return None
    values = _from_json(text) if text.lstrip()[:1] == b"{" else _from_lines(text)
    try:
        encoded = msgspec.json.encode(redacted(values, needles) if needles else values)
    except (ValueError, RecursionError) as error:
        raise InvalidOutputs(f"it cannot be stored: {error}") from error
    if b"\\u0000" in encoded.replace(b"\\\\", b""):
        raise InvalidOutputs("it holds a NUL character")
    if len(encoded) > MAX_OUTPUTS:
        raise InvalidOutputs(f"as JSON it is longer than {MAX_OUTPUTS} bytes")
    return encoded


def _from_json(text: bytes) -> dict[str, object]:
    try:
        return msgspec.json.decode(text, type=dict[str, object])
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidOutputs(f"it is no JSON object: {error}") from error


def _from_lines(text: bytes) -> dict[str, object]:
    values: dict[str, object] = {}
    try:
        lines = text.decode().splitlines()
    except UnicodeDecodeError as error:
        raise InvalidOutputs(f"it is not UTF-8: {error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        key, equals, value = line.partition("=")
        if not equals or not key.strip():
            raise InvalidOutputs(f"line {number} is no key=value, and the file is no JSON object")
        values[key.strip()] = value
    return values
