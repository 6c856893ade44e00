from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest

from scheduler.domain.access import (
    ANONYMOUS,
    DEVELOPER,
    GRANTS,
    INSTALLATION,
    PERMISSIONS,
    ROLES,
    Principal,
    defines_command,
    granted,
    namespace_for,
)
from scheduler.domain.errors import Forbidden
from scheduler.domain.task import TaskSpec


def principal(*namespaces: str) -> Principal:
    return Principal(name="key:x", kind="key", namespaces=frozenset(namespaces))


def test_each_role_holds_more_than_the_one_below_it() -> None:
    assert set(GRANTS) == set(ROLES)
    for lower, higher in pairwise(ROLES):
        assert GRANTS[lower] < GRANTS[higher]
    assert GRANTS["admin"] == set(PERMISSIONS)


def test_who_runs_commands_need_not_be_able_to_define_one() -> None:
    operator = granted("operator", (), None)
    assert "run:control" in operator
    assert "command:define" not in operator
    assert "command:define" in granted("operator", ("command:define",), None)


def test_whoever_is_confined_to_some_namespaces_holds_nothing_that_concerns_all() -> None:
    assert granted("admin", (), None) >= INSTALLATION
    assert not granted("admin", ("metrics:read",), {"a"}) & INSTALLATION


def test_nobody_in_particular_may_do_nothing_and_a_developer_everything() -> None:
    for permission in PERMISSIONS:
        DEVELOPER.demand(permission)
        with pytest.raises(Forbidden):
            ANONYMOUS.demand(permission)
    assert not ANONYMOUS.sees("default")


def test_a_request_is_about_the_namespace_it_names_if_that_is_the_callers() -> None:
    assert namespace_for(DEVELOPER, "a") == "a"
    assert namespace_for(DEVELOPER, None) == "default"
    assert namespace_for(principal("a"), None) == "a"
    assert namespace_for(principal("a", "b"), "b") == "b"
    assert namespace_for(principal("a", "default"), None) == "default"
    for who, wanted in ((principal("a"), "b"), (principal("a", "b"), None), (principal(), None), (ANONYMOUS, "a")):
        with pytest.raises(Forbidden):
            namespace_for(who, wanted)


@pytest.mark.parametrize(
    ("field", "value", "defines"),
    [
        ("command", "rm -r /", True),
        ("env", {"PATH": "/tmp"}, True),
        ("user", "root", True),
        ("workdir", "/tmp", True),
        ("stdin", "x", True),
        ("executor", "container", True),
        ("priority", 9, False),
        ("schedule", "@daily", False),
        ("timeout", 3.0, False),
    ],
)
def test_an_edit_that_changes_what_is_executed_or_as_whom_defines_a_command(
    field: str, value: object, defines: bool
) -> None:
    old = TaskSpec(name="a", command="true")
    assert defines_command(old, msgspec.structs.replace(old, **{field: value})) is defines


def test_every_permission_is_named_what_and_deed() -> None:
    assert all(len(name.split(":")) == 2 for name in PERMISSIONS)
