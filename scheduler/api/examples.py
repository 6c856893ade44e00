"""An example of any type that goes over the wire: made of the type itself, so that it always has its shape.

Names of fields say what would be plausible; where none does, the type decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import inspect

_ID: Final = "019ab3c4-5d6e-7f80-9123-456789abcdef"
_AT: Final = "2030-01-31T08:00:00Z"
_LIKELY: Final[Mapping[str, Any]] = {
    "name": "report",
    "task_name": "report",
    "command": ["/usr/bin/make", "report"],
    "namespace": "default",
    "queue": "default",
    "queues": ["default"],
    "host": "node-1",
    "reason": "exit:1",
    "output_tail": "done\n",
    "outputs": {"rows": "42"},
    "trace_id": "0af7651916cd43dd8448eb211c80319c",
    "created_by": "alice",
    "updated_by": "alice",
    "actor": "alice",
    "disposition": "fired",
    "local": "2030-01-31T09:00:00+01:00",
    "timezone": "Europe/Berlin",
    "executor": "process",
    "executors": ["process"],
    "containment": "cgroup",
    "version": 1,
    "priority": 5,
    "attempt": 1,
    "max_attempts": 1,
    "exit_code": 0,
    "next_cursor": None,
    "kill_signal": "TERM",
    "detail": "as it should be",
    "depends_on": [],
    "rules": [],
}


def example(type_: Any) -> Any:
    """Return a JSON value in the shape of a type."""
    return _value(inspect.type_info(type_), "", 0)


def _value(info: inspect.Type, name: str, depth: int) -> Any:  # noqa: C901, PLR0911, PLR0912 - one case a type
    match info:
        case inspect.Metadata():
            given = (info.extra_json_schema or {}).get("examples")
            return given[0] if given else _value(info.type, name, depth)
        case inspect.StructType():
            return {f.encode_name: _field(f, depth + 1) for f in info.fields}
        case inspect.UnionType():
            kinds = [kind for kind in info.types if not isinstance(kind, inspect.NoneType)]
            optional = len(kinds) < len(info.types)
            return None if optional and (depth > 3 or name.startswith("end")) else _value(kinds[0], name, depth)
        case inspect.LiteralType():
            return "completed" if "completed" in info.values else info.values[0]
        case inspect.UUIDType():
            return _ID
        case inspect.DateTimeType():
            return _AT
        case inspect.DateType():
            return _AT[:10]
        case inspect.TimeType():
            return _AT[11:]
        case inspect.StrType():
            return "text" if info.min_length is None or info.min_length <= len("text") else "t" * info.min_length
        case inspect.BoolType():
            return False
        case inspect.IntType() | inspect.FloatType():
            least = info.ge if info.ge is not None else info.gt + 1 if info.gt is not None else 0
            return int(max(least, 1 if info.le is None or info.le >= 1 else 0))
        case inspect.ListType() | inspect.VarTupleType() | inspect.SetType() | inspect.FrozenSetType():
            return [_value(info.item_type, "", depth)] if depth < 4 else []
        case inspect.DictType():
            return {}
        case inspect.EnumType():
            return next(iter(info.cls)).value
        case _:
            return {}


def _field(field: inspect.Field, depth: int) -> Any:
    name = field.encode_name
    if name in _LIKELY and _fits(field.type, _LIKELY[name]):
        return _LIKELY[name]
    if field.default is not msgspec.NODEFAULT:
        return msgspec.to_builtins(field.default)
    if field.default_factory is not msgspec.NODEFAULT:
        return msgspec.to_builtins(field.default_factory())
    return _value(field.type, name, depth)


def _fits(info: inspect.Type, value: Any) -> bool:  # noqa: PLR0911 - one case a type
    """Say whether a likely value is of the field's kind: the same word may name different things."""
    match info:
        case inspect.Metadata():
            return _fits(info.type, value)
        case inspect.UnionType():
            return any(_fits(kind, value) for kind in info.types)
        case inspect.StrType():
            return isinstance(value, str)
        case inspect.IntType():
            return isinstance(value, int)
        case inspect.ListType():
            return isinstance(value, list) and all(_fits(info.item_type, item) for item in value)
        case inspect.NoneType():
            return value is None
        case inspect.RawType() | inspect.AnyType():
            return True
        case _:
            return False
