"""Which task waits for which: what names in a batch refer to, and cycles, in time linear in tasks and edges."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TypeVar
from uuid import UUID

import msgspec

from scheduler.domain.errors import FieldError, InvalidInput
from scheduler.domain.task import Dependency, TaskSpec

Node = TypeVar("Node", bound=Hashable)


class Edge(msgspec.Struct, frozen=True, gc=False):
    """One dependency of a task, at `position` in its `depends_on`.

    Exactly one is set: `index`, the place in the same batch; `task_id`, which the store must know; or `name`, the only
    live task of that name, which the store must find.
    """

    position: int
    dependency: Dependency
    index: int | None = None
    task_id: UUID | None = None
    name: str | None = None


def resolve_batch(specs: Sequence[TaskSpec], *, pointer: str = "/{index}") -> list[list[Edge]]:
    """Return the edges of every task of a batch, in order: an id, else a name in the batch, else a name elsewhere.

    Raises InvalidInput with every name that several tasks of the batch bear, or with the first cycle found. `pointer`
    is where the task of that index stands in the body ("" for a single one).
    """
    if not any(spec.depends_on for spec in specs):
        return [[] for _ in specs]
    by_name: dict[str, int] = {}
    repeated: set[str] = set()
    for index, spec in enumerate(specs):
        if by_name.setdefault(spec.name, index) != index:
            repeated.add(spec.name)
    edges: list[list[Edge]] = []
    errors: list[FieldError] = []
    for index, spec in enumerate(specs):
        edges.append([_edge(position, d, by_name) for position, d in enumerate(spec.depends_on)])
        errors += (
            FieldError(
                f"{pointer.format(index=index)}/depends_on/{edge.position}/task",
                f"several tasks of this batch are named {edge.dependency.task!r}: give them different names",
            )
            for edge in edges[-1]
            if edge.index is not None and edge.dependency.task in repeated
        )
    if not errors:
        errors = _cycle_errors(specs, edges, pointer)
    if errors:
        raise InvalidInput(errors)
    return edges


def find_cycle(upstream: Mapping[Node, Iterable[Node]]) -> list[Node] | None:
    """Return one cycle, each node waiting for the next and the last for the first, or None.

    `upstream` maps each node to those that it waits for; nodes that are no key wait for nothing.
    """
    done: set[Node] = set()
    for start in upstream:
        if start in done:
            continue
        path: dict[Node, None] = {start: None}  # ordered, and quick to look up
        pending = [iter(upstream[start])]
        while pending:
            for node in pending[-1]:
                if node in path:
                    nodes = list(path)
                    return nodes[nodes.index(node) :]
                if node not in done and node in upstream:
                    path[node] = None
                    pending.append(iter(upstream[node]))
                    break
            else:
                pending.pop()
                done.add(path.popitem()[0])
    return None


def describe_cycle(names: Sequence[str]) -> str:
    """Return the sentence that names a cycle; a very long one is cut in its middle."""
    shown = [*names, names[0]] if len(names) <= 12 else [*names[:10], f"({len(names) - 11} more)", names[-1], names[0]]
    return "a cycle, in which each waits for the next: " + " → ".join(shown)


def as_id(task: str) -> UUID | None:
    """Return the id that `depends_on.task` writes out in full (36 characters), None for a name."""
    if len(task) == 36:
        try:
            return UUID(task)
        except ValueError:
            pass
    return None


def _edge(position: int, dependency: Dependency, by_name: Mapping[str, int]) -> Edge:
    task_id = as_id(dependency.task)
    if task_id is not None:
        return Edge(position, dependency, task_id=task_id)
    index = by_name.get(dependency.task)
    return Edge(position, dependency, index=index, name=dependency.task if index is None else None)


def _cycle_errors(specs: Sequence[TaskSpec], edges: Sequence[Sequence[Edge]], pointer: str) -> list[FieldError]:
    cycle = find_cycle({i: [e.index for e in own if e.index is not None] for i, own in enumerate(edges)})
    if cycle is None:
        return []
    first, second = cycle[0], cycle[1 % len(cycle)]
    position = next(edge.position for edge in edges[first] if edge.index == second)
    detail = describe_cycle([specs[index].name for index in cycle])
    return [FieldError(f"{pointer.format(index=first)}/depends_on/{position}", detail)]
