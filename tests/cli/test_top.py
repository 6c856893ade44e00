from __future__ import annotations

from scheduler.cli import exits
from tests.cli.conftest import Dts
from tests.cli.test_terminal import on_terminal


def test_one_look_tells_who_leads_who_works_and_what_failed(remote: Dts, server: str) -> None:
    remote("submit", "--wait", "--name", "broken", "-c", "--", "exit 3")
    done = remote("top", "--once", "--json")
    assert done.code == exits.OK
    assert done.item["health"]["leader"]["holder"]
    assert done.item["workers"][0]["slots"] > 0
    assert "broken" in {run["task_name"] for run in done.item["failed"]}
    shown = on_terminal(server, "top", "--once", NO_COLOR="1", COLUMNS="200")
    for text in ("leader ", "slots busy", "waiting grows", "failed lately", "exit:3"):
        assert text in shown
    assert "\x1b[3" not in shown
