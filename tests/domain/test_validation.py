"""What a task may say: its normal form, and a complaint at its place for everything else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.domain.complaints import MOST
from scheduler.domain.errors import InvalidInput
from scheduler.domain.task import TaskSpec, decode_spec, encode_spec
from scheduler.domain.validation import effective_run_at, normalise

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


def spec(**fields: Any) -> TaskSpec:
    """Decode a body as it would arrive."""
    return decode_spec(msgspec.json.encode({"name": "job", "command": ["/bin/true"]} | fields))


def complaints(pointer: str = "", **fields: Any) -> dict[str, str]:
    with pytest.raises(InvalidInput) as refusal:
        normalise(spec(**fields), NOW, pointer)
    return {error.pointer: error.detail for error in refusal.value.errors}


def test_a_minimal_task_is_its_own_normal_form() -> None:
    minimal = spec()
    assert normalise(minimal, NOW) is minimal


def test_durations_become_seconds_sizes_bytes_moments_utc_and_signals_short() -> None:
    given = spec(
        timeout="5m",
        kill_timeout=3,
        delay="1h30m",
        retry={"max_attempts": 3, "initial_interval": "2s", "rules": [{"signals": ["SIGSEGV"], "action": "fail"}]},
        limits={"memory": "64M", "output": "1K"},
        kill_signal="SIGINT",
        checkpoint={"signal": "sigusr2", "wait": "10s"},
    )
    normal = normalise(given, NOW)
    assert (normal.timeout, normal.kill_timeout, normal.delay) == (300.0, 3.0, 5400.0)
    assert (normal.retry.initial_interval, normal.retry.rules[0].signals) == (2.0, ["SEGV"])
    assert (normal.limits.memory, normal.limits.output) == (64 << 20, 1024)
    assert normal.kill_signal == "INT"
    assert normal.checkpoint is not None
    assert (normal.checkpoint.signal, normal.checkpoint.wait) == ("USR2", 10.0)
    once = normalise(spec(run_at="2030-01-01T00:00:00+02:00"), NOW)
    assert b'"run_at":"2029-12-31T22:00:00Z"' in encode_spec(once)


@pytest.mark.parametrize(
    ("fields", "pointer", "detail"),
    [
        ({"name": "  "}, "/name", "is blank"),
        ({"name": " a"}, "/name", "begins or ends with a blank"),
        ({"name": "a\nb"}, "/name", "U+000A"),
        ({"name": "a\0b"}, "/name", "U+0000"),
        ({"command": []}, "/command", "is empty"),
        ({"command": [""]}, "/command/0", "begins with the program"),
        ({"command": " \n"}, "/command", "is empty"),
        ({"command": ["/bin/echo", "a\0b"]}, "/command/1", "holds a NUL byte"),
        ({"command": "echo \0"}, "/command", "holds a NUL byte"),
        ({"command": ["/bin/echo", "x" * 131072]}, "/command/1", "has 131072 bytes: one argument has 131071 at most"),
        ({"command": "x" * 131072}, "/command", "131071 at most"),
        ({"command": ["/bin/echo", *["ü" * 60000] * 9]}, "/command", "1048576 at most"),
        ({"env": {"": "x"}}, "/env/", "is no name of a variable"),
        ({"env": {"A=B": "x"}}, "/env/A=B", "is no name of a variable"),
        ({"env": {"A\0": "x"}}, "/env/A\0", "U+0000"),
        ({"env": {"A/~": "\0"}}, "/env/A~1~0", "holds a NUL byte"),
        ({"env": {"DTS_FENCE": "1"}}, "/env/DTS_FENCE", "is set by the scheduler itself"),
        ({"env": {"TRACEPARENT": "1"}}, "/env/TRACEPARENT", "is set by the scheduler itself"),
        ({"env": {"A": "x" * 131070}}, "/env/A", "131071 at most"),
        ({"workdir": "tmp"}, "/workdir", "is relative"),
        ({"workdir": "/tmp\0"}, "/workdir", "U+0000"),
        ({"workdir": "/" + "x" * 5000}, "/workdir", "4095"),
        ({"stdin": "a\0"}, "/stdin", "NUL"),
        ({"user": "0day"}, "/user", "is no user name"),
        ({"user": "root\n"}, "/user", "is no user name"),
        ({"queue": "a b"}, "/queue", "is no queue name"),
        ({"queue": "a{b}"}, "/queue", "is no queue name"),
        ({"queue": "a~b"}, "/queue", "is no queue name"),
        ({"queue": "a\u0007"}, "/queue", "is no queue name"),
        ({"timeout": "soon"}, "/timeout", "is no duration"),
        ({"timeout": 0}, "/timeout", "is zero"),
        ({"timeout": -1}, "/timeout", "zero or more"),
        ({"kill_timeout": "11y"}, "/kill_timeout", "is no duration"),
        ({"retention": 1e12}, "/retention", "ten years at most"),
        ({"retention": "31d"}, "/retention", "30d at most"),
        ({"retry": {"initial_interval": "x"}}, "/retry/initial_interval", "is no duration"),
        ({"retry": {"initial_interval": 600}}, "/retry/max_interval", "raise it"),
        ({"retry": {"max_interval": "forever"}}, "/retry/max_interval", "is no duration"),
        ({"retry": {"rules": [{"action": "fail", "exit_codes": [0]}]}}, "/retry/rules/0/exit_codes/0", "1 to 255"),
        ({"retry": {"rules": [{"action": "fail", "exit_codes": []}]}}, "/retry/rules/0/exit_codes", "matches nothing"),
        ({"retry": {"rules": [{"action": "fail", "signals": ["X"]}]}}, "/retry/rules/0/signals/0", "is no signal"),
        ({"retry": {"rules": [{"action": "fail", "reasons": ["bad"]}]}}, "/retry/rules/0/reasons/0", "is no reason"),
        ({"limits": {"memory": "64MB"}}, "/limits/memory", "is no size"),
        ({"limits": {"memory": 0}}, "/limits/memory", "at least one byte"),
        ({"limits": {"output": "1G"}}, "/limits/output", "too many to keep"),
        ({"limits": {"pids": 10**30}}, "/limits/pids", "more than any machine has"),
        ({"kill_signal": "15"}, "/kill_signal", "is no signal"),
        ({"checkpoint": {"signal": "KILL"}}, "/checkpoint/signal", "no process ever sees KILL"),
        ({"checkpoint": {"wait": "-"}}, "/checkpoint/wait", "is no duration"),
        ({"schedule": "0 0 31 2 *"}, "/schedule", "this date never comes"),
        ({"schedule": "* * * *\0 *"}, "/schedule", "U+0000"),
        ({"schedule": "@daily", "timezone": "Mars/X"}, "/timezone", "is no time zone"),
        ({"timezone": "Mars/X"}, "/timezone", "is no time zone"),
        ({"schedule": "0 0 0 1 1 * 2020"}, "/schedule", "it would have last on 2020-01-01T00:00:00Z"),
        ({"schedule": "@daily", "ends_at": "2026-05-01T00:00:00Z"}, "/ends_at", "is past"),
        ({"schedule": "@yearly", "ends_at": "2026-12-01T00:00:00Z"}, "/ends_at", "first fire on 2027-01-01T00:00:00Z"),
        (
            {"schedule": "@daily", "starts_at": "2027-01-01T00:00:00Z", "ends_at": "2027-01-01T00:00:00Z"},
            "/ends_at",
            "is not after starts_at",
        ),
        ({"schedule": "@daily", "starts_at": "9999-12-31T23:59:59-10:00"}, "/starts_at", "out of range"),
        ({"run_at": "0001-01-01T00:00:00+10:00"}, "/run_at", "out of range"),
        ({"run_at": "2030-01-01T00:00:00Z", "delay": 5}, "/delay", "exclude each other"),
        ({"schedule": "@daily", "delay": 5}, "/delay", "has no single moment"),
        ({"schedule": "@daily", "run_at": "2030-01-01T00:00:00Z"}, "/run_at", "has no single moment"),
        ({"ends_at": "2030-01-01T00:00:00Z"}, "/ends_at", "there is none"),
        ({"depends_on": [{"task": "job"}]}, "/depends_on/0/task", "depends on itself"),
        ({"depends_on": [{"task": "a"}, {"task": "a", "on": "failure"}]}, "/depends_on/1/task", "twice"),
        ({"tags": ["a", "b", "a"]}, "/tags/2", "twice"),
        ({"tags": ["a\0"]}, "/tags/0", "U+0000"),
        ({"labels": {"a": "b\0"}}, "/labels/a", "U+0000"),
        ({"requires": {"": "b"}}, "/requires/", "is blank"),
        ({"idempotency_key": "a\nb"}, "/idempotency_key", "U+000A"),
        ({"fairness_key": " "}, "/fairness_key", "is blank"),
        ({"concurrency": {"key": " k"}}, "/concurrency/key", "blank"),
        ({"rate_limit": {"key": "k", "n": 1, "per": 0}}, "/rate_limit/per", "zero"),
        ({"rate_limit": {"key": "k", "n": 1, "per": "8d"}}, "/rate_limit/per", "7 days"),
        ({"calendars": ["c", "c"]}, "/calendars/1", "twice"),
        ({"executor": "container"}, "/executor", "not supported"),
    ],
)
def test_what_makes_no_sense_is_refused_at_its_place(fields: dict[str, Any], pointer: str, detail: str) -> None:
    found = complaints(**fields)
    assert list(found) == [pointer]
    assert detail in found[pointer]


def test_every_complaint_is_made_at_once_and_below_the_place_of_the_spec() -> None:
    found = complaints(
        "/7", name=" ", command=[], timeout="x", timezone="Nowhere", schedule="61 * * * *", tags=["a", "a"]
    )
    assert set(found) == {"/7/name", "/7/command", "/7/timeout", "/7/timezone", "/7/schedule", "/7/tags/1"}


def test_complaints_are_bounded_in_number_and_length() -> None:
    found = complaints(tags=["a\0"] * 10_000, timezone="x" * 100_000)
    assert len(found) <= MOST
    assert sum(map(len, complaints(timezone="x" * 100_000, queue="{" * 255).values())) < 1000


def test_text_that_commands_need_is_allowed() -> None:
    script = "set -e\n\tprintf '\033[1m%s' \"ü 日本\"\r\n"
    accepted = normalise(spec(command=script, env={"A": "x\ny", "B.c-d": ""}, stdin=script, labels={"a": ""}), NOW)
    assert accepted.command == script
    assert normalise(spec(command=["/bin/echo", "", " "]), NOW).command == ["/bin/echo", "", " "]


def test_the_longest_argument_and_variable_are_allowed() -> None:
    normalise(spec(command=["/bin/echo", "x" * 131071], env={"A": "x" * 131069}), NOW)


def test_a_schedule_that_starts_later_and_fires_once_is_allowed() -> None:
    accepted = normalise(
        spec(schedule="0 0 1 1 *", starts_at="2027-01-01T00:00:00Z", ends_at="2027-01-01T00:00:01Z"), NOW
    )
    assert accepted.starts_at == datetime(2027, 1, 1, tzinfo=UTC)


def test_fields_that_only_tell_how_to_fire_are_harmless_without_a_schedule() -> None:
    normalise(spec(jitter=5, catchup="all", catchup_window="1d", overlap="allow_all", timezone="Asia/Tokyo"), NOW)


def test_a_one_off_is_due_at_its_time_but_never_before_now() -> None:
    assert effective_run_at(spec(), NOW) == NOW
    assert effective_run_at(normalise(spec(delay="90s"), NOW), NOW) == NOW + timedelta(seconds=90)
    assert effective_run_at(spec(run_at="2030-01-01T00:00:00Z"), NOW) == datetime(2030, 1, 1, tzinfo=UTC)
    assert effective_run_at(spec(run_at="2000-01-01T00:00:00Z"), NOW) == NOW


words = st.text(max_size=12) | st.sampled_from(["5m", "SIGTERM", "* * * * *", "@daily", "/tmp", "64M", "Europe/Berlin"])
bodies = st.fixed_dictionaries(
    {"name": st.text(min_size=1, max_size=12), "command": st.lists(words, max_size=3) | words},
    optional={
        "env": st.dictionaries(words, words, max_size=3),
        "queue": st.text(min_size=1, max_size=9),
        "schedule": words,
        "timezone": words,
        "run_at": st.datetimes(timezones=st.just(UTC)),
        "starts_at": st.datetimes(timezones=st.just(UTC)),
        "ends_at": st.datetimes(timezones=st.just(UTC)),
        "delay": st.floats(allow_nan=False, allow_infinity=False) | words,
        "timeout": st.none() | st.floats(allow_nan=False, allow_infinity=False) | words,
        "tags": st.lists(st.text(min_size=1, max_size=9), max_size=3),
        "labels": st.dictionaries(words, words, max_size=3),
        "kill_signal": words,
        "limits": st.fixed_dictionaries({}, optional={"memory": words | st.integers(), "cpu": st.floats(0.1, 1e300)}),
        "user": words,
        "workdir": words,
        "stdin": words,
    },
)


@settings(deadline=None, max_examples=300)
@given(bodies)
def test_whatever_is_accepted_is_stable_and_can_be_stored(body: dict[str, Any]) -> None:
    try:
        normal = normalise(spec(**body), NOW)
    except InvalidInput:
        return
    assert normalise(normal, NOW) == normal
    stored = encode_spec(normal)
    assert decode_spec(stored) == normal
    assert "\0" not in str(msgspec.json.decode(stored))


@pytest.mark.parametrize(
    "fields",
    [
        {"schedule": "* * * * *", "ends_at": "2000-01-01T00:00:00+02:00"},
        {"schedule": "0 0 1 1 *", "starts_at": NOW.isoformat(), "ends_at": (NOW + timedelta(seconds=1)).isoformat()},
        {"schedule": "0 0 0 1 1 ? 2001"},
        {"schedule": "@every 10s", "ends_at": (NOW + timedelta(seconds=1)).isoformat()},
    ],
)
def test_what_is_past_is_complained_about_only_where_it_is_said_when_that_is(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        normalise(spec(**fields), NOW)
    normal = normalise(spec(**fields), None)
    assert normal == normalise(normal, None)
    with pytest.raises(InvalidInput) as caught:
        normalise(spec(**fields, priority=3, timezone="Mars/Olympus"), None)
    assert [error.pointer for error in caught.value.errors] == ["/timezone"]


@pytest.mark.parametrize(
    "fields", [{"run_at": "2030-01-01T00:00:00+02:00"}, {"schedule": "@every 90s", "jitter": "5m"}]
)
def test_the_normal_form_is_the_same_at_any_time(fields: dict[str, Any]) -> None:
    assert normalise(spec(**fields), None) == normalise(spec(**fields), NOW)
