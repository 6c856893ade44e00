from __future__ import annotations

import pytest
from msgspec.structs import replace

from scheduler.domain.checkup import HostFacts, PostgresFacts, judge_clock, judge_fleet, judge_host, judge_postgres

SETTINGS = {
    "autovacuum": "on",
    "default_transaction_read_only": "off",
    "fsync": "on",
    "full_page_writes": "on",
    "max_connections": "100",
    "synchronous_commit": "on",
}
POSTGRES = PostgresFacts(version=170002, settings=SETTINGS, standby=False, connections=3, apart=0.0, doubt=0.001)
HOST = HostFacts(
    python=(3, 12, 1),
    platform="linux",
    outdated=[],
    open_files=65536,
    containment="cgroup v2 (memory)",
    unwritable=[],
    readable_keys=[],
)


def test_a_good_server_and_machine_have_nothing_to_mend() -> None:
    checks = [*judge_postgres(POSTGRES), *judge_host(HOST), *judge_fleet(1.0, 2)]
    assert {check.verdict for check in checks} == {"ok"}
    assert not any(check.fix for check in checks)


@pytest.mark.parametrize(
    ("setting", "value", "verdict"),
    [
        ("fsync", "off", "wrong"),
        ("synchronous_commit", "off", "wrong"),
        ("synchronous_commit", "remote_apply", "ok"),
        ("autovacuum", "off", "wrong"),
        ("max_connections", "20", "note"),
    ],
)
def test_settings_that_lose_work_are_wrong(setting: str, value: str, verdict: str) -> None:
    found = judge_postgres(replace(POSTGRES, settings={**SETTINGS, setting: value}))
    (check,) = [check for check in found if check.name == setting]
    assert check.verdict == verdict
    assert bool(check.fix) == (verdict != "ok")


def test_old_servers_and_standbys_are_wrong() -> None:
    found = judge_postgres(replace(POSTGRES, version=140010, standby=True))
    assert [check.name for check in found if check.verdict == "wrong"] == ["version", "primary"]


def test_a_server_that_refuses_writes_is_not_said_to_take_them() -> None:
    for facts in (
        replace(POSTGRES, standby=True),
        replace(POSTGRES, settings={**SETTINGS, "default_transaction_read_only": "on"}),
    ):
        (check,) = [check for check in judge_postgres(facts) if check.name == "primary"]
        assert (check.verdict, "takes writes" in check.says) == ("wrong", False)


def test_a_clock_is_judged_no_more_precisely_than_it_was_read() -> None:
    assert judge_clock("redis", 1.4, 0.5).verdict == "ok"
    assert judge_clock("redis", -1.4, 0.1).verdict == "note"


def test_nobody_leading_and_nobody_working_are_told() -> None:
    assert [check.verdict for check in judge_fleet(None, 0)] == ["wrong", "wrong"]


def test_a_machine_for_development_is_told_so() -> None:
    found = judge_host(replace(HOST, platform="darwin", containment="process group", open_files=256))
    assert {check.name for check in found if check.verdict == "note"} == {"platform", "containment", "open files"}
