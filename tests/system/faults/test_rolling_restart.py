"""A rolling restart of every role under a backlog: nothing is lost, and no attempt is spent."""

from __future__ import annotations

import time

import httpx2

from tests.support.cluster import Cluster
from tests.support.cluster.faults import Kill
from tests.support.waiting import until_sync
from tests.system.faults.support import Figure


def test_a_thousand_runs_survive_a_rolling_restart_of_every_role(system: Cluster, figure: Figure) -> None:
    began = time.monotonic()
    runs = system.submit_many(1000, command="sleep 0.02")
    seen = []
    for member in system.members:
        figure(f"{member.name.partition('-')[0]} stopped after", member.stop(), 5.0)
        seen.append(system.states().get("completed", 0))
        member.start()
        system.until_ready()
    assert seen[0] < seen[-1], "it was over before it began"
    rows = system.until_completed(runs, 60)
    assert {(row["attempt"], row["failures"], row["losses"]) for row in rows} == {(1, 0, 0)}
    figure("1,000 runs done after", time.monotonic() - began, 60.0)


def test_what_an_api_acknowledged_before_it_was_killed_is_there(system: Cluster, figure: Figure) -> None:
    (api,) = system.of("api")
    acknowledged: list[str] = []
    for number in range(30):
        if number == 20:
            Kill(api).inject()
        try:
            acknowledged.append(system.submit()["last_run"]["id"])
        except httpx2.HTTPError:
            continue
    assert len(acknowledged) == 20
    killed_at = time.monotonic()
    api.start()
    until_sync(lambda: system.is_up(api), 20)
    figure("answers again after", time.monotonic() - killed_at, 10.0)
    assert all(row["attempt"] == 1 for row in system.until_completed(acknowledged))
