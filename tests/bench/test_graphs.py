from __future__ import annotations

from bench.graphs import tasks


def test_a_graph_names_its_edges_and_without_them_is_as_many_tasks() -> None:
    edges = [("a", ()), ("b", ("a",)), ("c", ("a", "b"))]
    assert [task.get("depends_on", []) for task in tasks(edges, prefix="x-", connected=True)] == [
        [],
        [{"task": "x-a"}],
        [{"task": "x-a"}, {"task": "x-b"}],
    ]
    loose = tasks(edges, prefix="x-", connected=False)
    assert [task["name"] for task in loose] == ["x-a", "x-b", "x-c"]
    assert not any("depends_on" in task for task in loose)
