"""What text may hold: checks on single strings, each returning a complaint or None."""

from __future__ import annotations

import re

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_UNSTORABLE = re.compile(r"[\x00\ud800-\udfff]")
_QUEUE = re.compile(r"[^\s{}~]+")
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,30}\$?")


def label(text: str) -> str | None:
    """Complain about a text that is not one visible line: blank, padded with blanks, or with control characters."""
    if not text or text.isspace():
        return "is blank"
    if text[0].isspace() or text[-1].isspace():
        return "begins or ends with a blank"
    return control(text)


def control(text: str) -> str | None:
    """Complain about control characters, line breaks included."""
    if text.isprintable():
        return None
    found = _CONTROL.search(text)
    return None if found is None else f"holds the control character U+{ord(found[0]):04X}"


def storable(text: str) -> str | None:
    """Complain about what neither a command line nor the database can hold: NUL, and halves of surrogate pairs."""
    if text.isprintable():
        return None
    found = _UNSTORABLE.search(text)
    if found is None:
        return None
    return "holds a NUL byte" if found[0] == "\0" else f"holds U+{ord(found[0]):04X}, half of a character"


def queue(text: str) -> str | None:
    """Complain about a name that cannot be a queue's: lanes and Redis keys are made of it."""
    if _QUEUE.fullmatch(text) and control(text) is None:
        return None
    return "is no queue name: write visible characters without blanks and without { } ~"


def user(text: str) -> str | None:
    """Complain about a name that cannot be a user's."""
    if _USER.fullmatch(text):
        return None
    return "is no user name: write letters, digits, '_', '.' and '-', 32 at most, not beginning with a digit"


def absolute_path(text: str) -> str | None:
    """Complain about a path that is not absolute, or that no system takes."""
    if not text.startswith("/"):
        return "is relative: write a path that begins with /"
    if len(text.encode(errors="replace")) > 4095:
        return "is longer than the 4095 bytes that a path may have"
    return control(text)


def byte_length(text: str) -> int:
    """Return how many bytes the text has in UTF-8."""
    return len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))
