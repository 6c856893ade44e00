"""Named SQL, loaded once from `sql/*.sql`.

A file holds statements and fragments. `-- name: x` begins a statement and the comment below it says which transition it
makes (`-- from → to`) or what it reads. `-- fragment: x` begins text that a statement
takes in with a line `-- include: x`;
fragments may include fragments.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

_HEADER = re.compile(r"^-- (name|fragment): (\w+)\s*$", re.MULTILINE)
_INCLUDE = re.compile(r"^[ \t]*-- include: (\w+)\s*$", re.MULTILINE)
_DIRECTORY = Path(__file__).parent / "sql"


def parse(text: str) -> tuple[dict[str, str], dict[str, str]]:
    """Split one file into (statements, fragments) by name. Raises ValueError for a name given twice."""
    found: dict[str, dict[str, str]] = {"name": {}, "fragment": {}}
    headers = list(_HEADER.finditer(text))
    for header, following in zip(headers, [*headers[1:], None], strict=True):
        kind, name = header.groups()
        body = text[header.end() : following.start() if following else len(text)].strip()
        if name in found[kind]:
            raise ValueError(f"{kind} {name} is defined twice")
        found[kind][name] = body
    return found["name"], found["fragment"]


def load(directory: Path = _DIRECTORY) -> Mapping[str, str]:
    """Read every file of the directory and resolve the includes. Raises ValueError for unknown or repeated names."""
    statements: dict[str, str] = {}
    fragments: dict[str, str] = {}
    for path in sorted(directory.glob("*.sql")):
        for target, found in zip((statements, fragments), parse(path.read_text("utf-8")), strict=True):
            if twice := target.keys() & found.keys():
                raise ValueError(f"{path.name} defines again: {', '.join(sorted(twice))}")
            target.update(found)

    def resolve(match: re.Match[str]) -> str:
        if match[1] not in fragments:
            raise ValueError(f"no fragment {match[1]}")
        return _INCLUDE.sub(resolve, fragments[match[1]])

    return MappingProxyType(
        {name: _INCLUDE.sub(resolve, text).rstrip().rstrip(";") for name, text in statements.items()}
    )


STATEMENTS = load()
