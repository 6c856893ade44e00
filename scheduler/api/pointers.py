"""From msgspec's messages to JSON pointers: `… - at `$.retry.rules[0].action`` becomes `/retry/rules/0/action`.

msgspec writes `[...]` where it does not know the key of a mapping; the pointer then ends at the mapping itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from scheduler.domain.errors import FieldError

_AT = re.compile(r"^(?P<detail>.*?)(?: - at `(?P<path>\$.*)`)?$", re.DOTALL)
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]|(\[\.\.\.\])")
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`$", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.*)`$", re.DOTALL)


def pointer(*steps: object) -> str:
    """Join steps to an RFC 6901 pointer, escaping `~` and `/`."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in steps)


def field_error(message: str, prefix: str = "") -> FieldError:
    """Translate the text of a `msgspec.ValidationError`; `prefix` is the pointer of the value that was decoded."""
    match = _AT.match(message)
    detail, path = (match["detail"], match["path"]) if match else (message, None)
    steps: list[object] = list(_steps(path or ""))
    known = path is None or "[...]" not in path
    for pattern, text in ((_UNKNOWN, "there is no such field"), (_MISSING, "this field is required")):
        if named := pattern.match(detail):
            detail = text if known else f"{text}: {named[1]}"
            if known:
                steps.append(named[1])
    detail = detail.replace("`", "")
    return FieldError(prefix + pointer(*steps), detail[:1].lower() + detail[1:])


def _steps(path: str) -> Iterable[object]:
    for name, index, unknown in _STEP.findall(path):
        if unknown:
            return
        yield name or index
