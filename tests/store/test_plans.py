"""Plans of what runs most: kept while tables grow, so they must be right on empty ones; past weeks cost nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from scheduler.store.database import Database
from scheduler.store.statements import STATEMENTS
from tests.support.rows import IDS, bench, new_task

pytestmark = pytest.mark.anyio

_REPORT = {1: "array", 15: "one", 16: "one"}
_IDS = {"claim": {2: "array", 4: "one", 5: "one"}, "finish": _REPORT, "finish_and_bury": _REPORT}
"""Which parameters of a statement are the ids of its runs, or one of them."""


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child)


async def _explain(database: Database, name: str, run_id: object) -> list[dict[str, Any]]:
    text = STATEMENTS[name]
    numbers = range(1, 1 + max(int(number) for number in re.findall(r"\$(\d+)", text)))
    values = {"array": f"ARRAY['{run_id}'::uuid]", "one": f"'{run_id}'", None: "NULL"}
    async with database.session() as connection:
        await connection.execute(f"PREPARE kept AS {text}")
        try:
            arguments = ", ".join(values[_IDS[name].get(number)] for number in numbers)
            plans = await connection.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE kept({arguments})")
        finally:
            await connection.execute("DEALLOCATE kept")
    return list(_nodes(json.loads(plans)[0]["Plan"]))


@pytest.mark.parametrize("name", _IDS)
@pytest.mark.parametrize("tables", ["new", "used"])
async def test_a_run_is_looked_up_by_its_id_in_its_own_week_alone(database: Database, name: str, tables: str) -> None:
    if tables == "used":
        async with bench(database) as b:
            await b.intake.create_batch([[new_task() for _ in range(200)]])
        async with database.session() as connection:
            await connection.execute("VACUUM ANALYZE")
    nodes = await _explain(database, name, IDS.one())
    scans = [
        node for node in nodes if node.get("Relation Name", "").startswith("runs_") and "Scan" in node["Node Type"]
    ]
    assert scans
    for scan in scans:
        assert scan["Node Type"] == "Index Scan", scan
        assert re.fullmatch(r"\(\(?id = \w+\.run_id\).*", scan["Index Cond"]), scan
    assert {scan["Relation Name"] for scan in scans} != {"runs_default"}
    assert len(scans) <= 2  # its week, and the default partition, which no bound excludes
    assert [node for node in nodes if node.get("Node Type") == "Append" and node.get("Subplans Removed", 0) >= 2]


_LAST = "'ffffffff-ffff-ffff-ffff-ffffffffffff'"
_OF_ANOTHER = {
    "list_tasks_by_name": f"'default', {_LAST}, 11, 10000, NULL, 'another', NULL",
    "resolve_names": "'default', ARRAY['another']",
    "list_runs_ended": f"'default', {_LAST}, 11, 10000, NULL, 'failed'",
    "list_tasks_ended": f"'default', {_LAST}, 11, 10000, NULL, 'failed', NULL, NULL",
    "list_events_by_name": f"'default', {_LAST}, 11, 'another'",
}
"""Statement → arguments that ask for what there is none of."""


@pytest.mark.parametrize("name", _OF_ANOTHER)
async def test_what_is_rare_is_not_looked_for_among_all_that_there_is(database: Database, name: str) -> None:
    async with database.session() as connection:
        await connection.execute(f"PREPARE kept AS {STATEMENTS[name]}")
        async with bench(database) as b:  # everything bears one name, and has ended in one way
            await b.intake.create_batch([[new_task(straight=False) for _ in range(2_000)]])
        await connection.execute("UPDATE runs SET state = 'cancelled', finished_at = now()")
        await connection.execute(
            "INSERT INTO events SELECT id, 'default', 'one', '{}', now(), 'test' FROM tasks WHERE namespace = 'default'"
        )
        await connection.execute("VACUUM ANALYZE")
        plans = await connection.fetchval(f"EXPLAIN (FORMAT JSON, ANALYZE) EXECUTE kept({_OF_ANOTHER[name]})")
    for node in _nodes(json.loads(plans)[0]["Plan"]):
        assert node["Actual Rows"] <= 1, node
        assert node.get("Rows Removed by Filter", 0) == 0, node


@pytest.mark.parametrize("name", ["forget_week_keys", "forget_week_checkpoints"])
async def test_what_a_week_leaves_elsewhere_is_not_looked_for_among_that_of_all_weeks(
    database: Database, name: str
) -> None:
    async with database.session() as connection:
        await connection.execute(f"PREPARE kept AS {STATEMENTS[name]}")
        plan = await connection.fetchval("EXPLAIN (FORMAT JSON) EXECUTE kept('2026-01-05', 1000)")
    (due,) = (node for node in _nodes(json.loads(plan)[0]["Plan"]) if node.get("Subplan Name") == "CTE due")
    (scan,) = (node for node in _nodes(due) if node.get("Relation Name") in {"idempotency_keys", "checkpoints"})
    assert re.fullmatch(r"\(\((task|run)_id >= .*\) AND \((task|run)_id < .*\)\)", scan["Index Cond"]), scan
