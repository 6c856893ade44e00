from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bench.workflows import Job, Workflow, ideal_makespan, read, specs, violations
from scheduler.domain.run import Run
from tests.roles.client.test_exchange import RUN

START = datetime(2030, 1, 1, tzinfo=UTC)
DIAMOND = Workflow("diamond", {"a": Job(1, ()), "b": Job(2, ("a",)), "c": Job(3, ("a",)), "d": Job(1, ("b", "c"))})


def ran(start: float | None, end: float | None, state: str = "completed") -> Run:
    def at(seconds: float | None) -> str | None:
        return None if seconds is None else (START + timedelta(seconds=seconds)).isoformat()

    fields: dict[str, Any] = {**RUN, "state": state, "started_at": at(start), "finished_at": at(end)}
    return msgspec.convert(fields, Run)


def test_a_recorded_workflow_is_read(tmp_path: Path) -> None:
    body = {
        "name": "w",
        "workflow": {
            "specification": {"tasks": [{"id": "a", "parents": []}, {"id": "b", "parents": ["a", "a"]}]},
            "execution": {"tasks": [{"id": "a", "runtimeInSeconds": 1.5}, {"id": "b", "runtimeInSeconds": 2}]},
        },
    }
    (tmp_path / "w.json").write_bytes(msgspec.json.encode(body))
    workflow = read(tmp_path / "w.json")
    assert workflow == Workflow("w", {"a": Job(1.5, ()), "b": Job(2.0, ("a",))})
    assert workflow.edges == [("a", "b")]
    assert workflow.sinks == ["b"]


def test_jobs_sleep_for_their_scaled_runtimes_and_name_their_parents() -> None:
    batch = specs(DIAMOND, 0.5, "q")
    assert [spec.command for spec in batch] == [["sleep", f"{t:.4f}"] for t in (0.5, 1, 1.5, 0.5)]
    assert [d.task for d in batch[3].depends_on] == ["b", "c"]
    assert specs(DIAMOND, 0, "q")[0].command == ["/bin/true"]


@pytest.mark.parametrize(("slots", "makespan"), [(1, 7.0), (2, 5.0), (100, 5.0)])
def test_the_ideal_makespan_is_a_list_schedule(slots: int, makespan: float) -> None:
    assert ideal_makespan(DIAMOND, 1.0, slots) == makespan
    assert ideal_makespan(DIAMOND, 0.1, slots) == pytest.approx(makespan / 10)


def test_a_child_that_starts_before_its_parent_has_succeeded_violates_the_order() -> None:
    good = {"a": ran(0, 1), "b": ran(1, 3), "c": ran(1.1, 4), "d": ran(4, 5)}
    assert violations(DIAMOND, good) == []
    assert len(violations(DIAMOND, {**good, "b": ran(0.5, 3)})) == 1
    assert len(violations(DIAMOND, {**good, "d": ran(3.5, 5)})) == 1
    assert len(violations(DIAMOND, {**good, "a": ran(0, 1, "failed")})) == 2
    assert violations(DIAMOND, {**good, "d": ran(None, None, "skipped")}) == []
