"""Events from the command line start what waits for them."""

from __future__ import annotations

from pathlib import Path

from scheduler.cli import exits
from tests.cli.conftest import Dts


def test_an_event_starts_a_task_that_reads_its_payload(remote: Dts, tmp_path: Path) -> None:
    task = remote("submit", "--name", "cli-on-event", "--schedule", "@event cli.built", "--", "true").item
    assert task["next_fire_at"] is None
    payload = tmp_path / "payload.json"
    payload.write_text('{"version": 3}')
    said = remote("event", "publish", "cli.built", "--file", payload)
    assert said.code == exits.OK, said.err
    (begun,) = said.item["runs"]
    assert begun["task_id"] == task["id"]
    assert [event["payload"] for event in remote("event", "list", "--name", "cli.built").items] == [{"version": 3}]
    assert remote("event", "publish", "cli.nobody").item["runs"] == []
    assert remote("event", "publish", "cli.built", "--payload", "{").code == exits.USAGE
    assert remote("event", "publish", "no name").code == exits.FAILURE
