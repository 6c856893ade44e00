"""Names in a batch, and cycles."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.domain.dependencies import describe_cycle, find_cycle, resolve_batch
from scheduler.domain.errors import InvalidInput
from scheduler.domain.task import Dependency, TaskSpec

ID = "01890000-0000-7000-8000-000000000001"


def task(name: str, *upstream: str) -> TaskSpec:
    return TaskSpec(name=name, command="true", depends_on=[Dependency(task=other) for other in upstream])


def test_a_dependency_is_an_id_else_a_name_in_the_batch_else_a_name_elsewhere() -> None:
    first, second = resolve_batch([task("a"), task("b", ID, "a", "elsewhere")])
    assert first == []
    by_id, by_place, by_name = second
    assert (by_id.task_id, by_id.index, by_id.name) == (UUID(ID), None, None)
    assert (by_place.task_id, by_place.index, by_place.name) == (None, 0, None)
    assert (by_name.task_id, by_name.index, by_name.name) == (None, None, "elsewhere")
    assert [edge.position for edge in second] == [0, 1, 2]


def test_a_name_that_looks_like_an_id_but_is_none_is_a_name() -> None:
    odd = "g" * 36
    assert resolve_batch([task("a", odd)])[0][0].name == odd


def test_names_may_repeat_in_a_batch_unless_something_depends_on_them() -> None:
    assert resolve_batch([task("a"), task("a"), task("b")]) == [[], [], []]
    with pytest.raises(InvalidInput) as refusal:
        resolve_batch([task("a"), task("a"), task("b", "a"), task("c", "x", "a")])
    assert [error.pointer for error in refusal.value.errors] == ["/2/depends_on/0/task", "/3/depends_on/1/task"]
    assert "several tasks of this batch are named 'a'" in refusal.value.errors[0].detail


def test_a_cycle_is_refused_by_name() -> None:
    with pytest.raises(InvalidInput) as refusal:
        resolve_batch([task("start"), task("a", "start", "c"), task("b", "a"), task("c", "b"), task("end", "c")])
    (error,) = refusal.value.errors
    assert error.pointer == "/1/depends_on/1"
    assert error.detail.endswith("a → c → b → a")


def test_a_task_that_waits_for_itself_is_a_cycle() -> None:
    with pytest.raises(InvalidInput, match="a → a"):
        resolve_batch([task("a", "a")], pointer="")


def test_a_diamond_is_no_cycle() -> None:
    assert find_cycle({"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c", "b"]}) is None


def test_a_chain_of_a_hundred_thousand_needs_no_stack() -> None:
    size = 100_000
    chain = {node: [node + 1] for node in range(size)}
    assert find_cycle(chain) is None
    cycle = find_cycle(chain | {size: [0]})
    assert cycle == list(range(size + 1))
    assert len(describe_cycle([str(node) for node in cycle])) < 200


@settings(deadline=None)
@given(st.dictionaries(st.integers(0, 8), st.lists(st.integers(0, 8), max_size=4), max_size=9))
def test_a_cycle_is_found_exactly_if_there_is_one(graph: dict[int, list[int]]) -> None:
    reach = {node: set(others) for node, others in graph.items()}
    for _ in range(9):
        for others in reach.values():
            others |= {far for near in set(others) for far in reach.get(near, ())}
    cycle = find_cycle(graph)
    assert (cycle is not None) == any(node in others for node, others in reach.items())
    if cycle is not None:
        assert all(after in graph[before] for before, after in zip(cycle, [*cycle[1:], cycle[0]], strict=True))
