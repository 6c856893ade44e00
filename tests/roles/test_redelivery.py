"""A run that the broker delivers again while it executes."""

from __future__ import annotations

from pathlib import Path

from scheduler.broker import Broker
from scheduler.domain.task import TaskSpec, encode_spec
from scheduler.store.intake import NewTask
from tests.roles.test_worker_role import shared, works  # noqa: F401
from tests.roles.worker_role_support import Works
from tests.roles.worker_support import first_line
from tests.support import until
from tests.support.lanes import lane_state
from tests.support.rows import IDS


async def test_a_run_that_is_delivered_again_while_it_executes_executes_once(
    works: Works,  # noqa: F811
    shared: Path,  # noqa: F811
) -> None:
    note, go = shared / "note", shared / "go"
    command = f"echo begun >> {note}; n=0; until [ -e {go} ] || [ $n -gt 900 ]; do sleep 0.05; n=$((n+1)); done"
    task_id, run_id = IDS.take(2)
    spec = TaskSpec(name="long", command=command)
    new = NewTask(task_id, run_id, "default", "test", spec, encode_spec(spec), (), True)
    queued = (await works.intake.create(new)).queued
    assert queued is not None
    await works.broker.push([queued])
    await first_line(note)
    for _ in range(3):
        await works.broker.reclaim_idle(["default"], 0.0)  # whatever was not acknowledged comes again
        await works.broker.clear("default")  # and the broker has forgotten what it has delivered
        await works.broker.push([queued])
        assert (await works.run("true"))["state"] == "completed"  # behind it in the same lane
        await until(lambda: nothing_offered(works.broker))
    go.touch()
    row = await works.ended_row(run_id)
    assert (row["state"], row["attempt"]) == ("completed", 1)
    assert note.read_text() == "begun\n"


async def nothing_offered(through: Broker) -> bool:
    lane = await lane_state(through)
    return not sum(lane.ready) and not lane.undelivered and not lane.pending
