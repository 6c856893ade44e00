"""The client's core, driven by hand: every answer is scripted, nothing waits."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import msgspec
import pytest

from scheduler.client import calendars, runs, tasks, waiting
from scheduler.client.errors import (
    BadAnswer,
    Conflict,
    InvalidRequest,
    NotFound,
    Overloaded,
    PartlySubmitted,
    PreconditionFailed,
    Unreachable,
    WaitTimeout,
)
from scheduler.client.exchange import (
    Fault,
    Heard,
    Listen,
    Operation,
    Pause,
    Reply,
    Request,
    build,
    path_of,
    with_retries,
)
from scheduler.client.pages import Listing
from scheduler.client.retry import RetryPolicy
from scheduler.domain.task import TaskSpec

T = TypeVar("T")

LOST = Fault(sent=True, detail="connection reset")
REFUSED = Fault(sent=False, detail="connection refused")
POLICY = RetryPolicy(attempts=3, base=0.5, cap=10.0)

RUN: dict[str, Any] = {
    "id": "01890a5d-ac96-774b-bcce-b302099a8057",
    "task_id": "01890a5d-ac96-774b-bcce-b302099a8056",
    "namespace": "default",
    "task_name": "t",
    "state": "running",
    "reason": None,
    "trigger": "once",
    "scheduled_for": None,
    "run_at": "2030-01-01T00:00:00Z",
    "created_at": "2030-01-01T00:00:00Z",
    "queued_at": None,
    "started_at": None,
    "finished_at": None,
    "attempt": 1,
    "max_attempts": 1,
    "exit_code": None,
    "failures": 0,
    "losses": 0,
    "worker_id": None,
    "outputs": None,
    "output_tail": None,
    "priority": 5,
    "queue": "default",
    "trace_id": None,
    "cancel_requested": False,
    "version": 1,
}


def json_reply(body: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    return Reply(status, headers or {}, msgspec.json.encode(body))


def problem(status: int, kind: str, headers: Mapping[str, str] | None = None) -> Reply:
    body = {"type": f"urn:dts:problem:{kind}", "title": "t", "status": status, "detail": "the detail"}
    return json_reply(body, status, headers)


def play(
    operation: Operation[T], *answers: Reply | Fault, policy: RetryPolicy = POLICY
) -> tuple[T, list[Request], list[float]]:
    """Run an operation against scripted answers; return its result, the requests sent and the pauses made."""
    requests: list[Request] = []
    pauses: list[float] = []
    rest: Iterator[Reply | Fault] = iter(answers)
    exchange = with_retries(operation, policy, lambda: 1.0)
    try:
        step = next(exchange)
        while True:
            if isinstance(step, Pause):
                pauses.append(step.seconds)
                step = exchange.send(sum(pauses))
            else:
                assert isinstance(step, Request)
                requests.append(step)
                step = exchange.send(next(rest))
    except StopIteration as end:
        assert next(rest, None) is None, "not every scripted answer was asked for"
        return end.value, requests, pauses


def test_a_read_is_sent_again_after_a_lost_answer_with_growing_pauses() -> None:
    run, requests, pauses = play(runs.run(RUN["id"]), LOST, REFUSED, json_reply(RUN))
    assert run.state == "running"
    assert [request.target for request in requests] == [f"/api/runs/{RUN['id']}"] * 3
    assert pauses == [0.5, 1.0]


def test_giving_up_raises_the_last_error() -> None:
    with pytest.raises(Unreachable, match="connection refused"):
        play(runs.run(RUN["id"]), LOST, LOST, REFUSED)


UNKEYED = RetryPolicy(attempts=3, base=0.5, cap=10.0, keyed=False)
CREATED = {"items": [{"id": RUN["task_id"], "run_id": RUN["id"]}]}


def test_a_post_is_sent_again_under_the_key_that_it_had_the_first_time() -> None:
    body = {"type": "urn:dts:problem:conflict", "status": 409, "detail": "d", "code": "in_flight"}
    under_way = json_reply(body, 409, {"retry-after": "1"})
    batch = [TaskSpec(name="t", command=["true"])]
    _, requests, pauses = play(tasks.submit_batch(batch), LOST, under_way, json_reply(CREATED, 201))
    first, *again = [request.headers["idempotency-key"] for request in requests]
    assert again == [first, first]
    assert pauses == [0.5, 2.0]
    _, (other,), _ = play(tasks.submit_batch(batch), json_reply(CREATED, 201))
    assert other.headers["idempotency-key"] != first


def test_a_request_that_may_be_repeated_anyway_needs_no_key() -> None:
    spec = TaskSpec(name="t", command=["true"], idempotency_key="k")
    for operation in (tasks.submit(spec), tasks.delete_task(RUN["id"]), runs.run(RUN["id"])):
        request = next(with_retries(operation, POLICY, lambda: 1.0))
        assert isinstance(request, Request)
        assert "idempotency-key" not in request.headers


def test_batches_that_were_taken_before_one_was_refused_are_told() -> None:
    specs = (TaskSpec(name=f"t{n}", command=["true"]) for n in range(3))
    two = {"items": CREATED["items"] * 2}
    with pytest.raises(PartlySubmitted, match="0 to 1 were created, 2 to 2 were not") as caught:
        play(tasks.submit_many(specs, batch=2), json_reply(two, 201), problem(422, "invalid"))
    assert len(caught.value.created) == 2
    assert isinstance(caught.value.error, InvalidRequest)
    with pytest.raises(InvalidRequest):
        play(tasks.submit_many([TaskSpec(name="t", command=["true"])]), problem(422, "invalid"))


def test_without_keys_a_post_is_not_sent_again_once_it_may_have_arrived() -> None:
    with pytest.raises(Unreachable) as caught:
        play(tasks.submit(TaskSpec(name="t", command=["true"])), LOST, policy=UNKEYED)
    assert caught.value.in_doubt


def test_a_submit_without_a_key_is_sent_again_when_nobody_was_listening() -> None:
    with pytest.raises(InvalidRequest):
        play(tasks.submit(TaskSpec(name="t", command=["true"])), REFUSED, problem(422, "invalid"), policy=UNKEYED)


def test_a_submit_with_a_key_is_sent_again_after_a_lost_answer() -> None:
    spec = TaskSpec(name="t", command=["true"], idempotency_key="k")
    with pytest.raises(InvalidRequest):
        play(tasks.submit(spec), LOST, problem(422, "invalid"))


def test_an_overloaded_server_took_nothing_so_anything_is_sent_again_after_its_retry_after() -> None:
    created = json_reply({"items": [{"id": RUN["task_id"], "run_id": RUN["id"]}]}, 201)
    answers = problem(503, "overloaded", {"retry-after": "2"}), created
    (item,), _, pauses = play(tasks.submit_batch([TaskSpec(name="t", command=["true"])]), *answers)
    assert str(item.run_id) == RUN["id"]
    assert pauses == [2.5]


def test_a_server_whose_database_is_away_leaves_a_submit_in_doubt() -> None:
    with pytest.raises(Overloaded) as caught:
        play(tasks.trigger(RUN["task_id"]), problem(503, "unavailable", {"retry-after": "1"}), policy=UNKEYED)
    assert caught.value.in_doubt


def test_a_retry_after_beyond_patience_is_not_waited_for() -> None:
    with pytest.raises(Overloaded) as caught:
        play(runs.run(RUN["id"]), problem(429, "rate-limited", {"retry-after": "3600"}))
    assert caught.value.retry_after == 3600


def test_a_delete_whose_first_answer_was_lost_may_find_nothing_left() -> None:
    play(tasks.delete_task(RUN["task_id"]), LOST, problem(404, "not-found"))
    with pytest.raises(NotFound):
        play(tasks.delete_task(RUN["task_id"]), problem(404, "not-found"))


def test_a_delete_says_that_any_version_is_meant_for_servers_that_want_to_be_told() -> None:
    _, (request,), _ = play(calendars.delete_calendar("holidays"), Reply(204, {}, b""))
    assert request.headers["if-match"] == "*"


def test_a_replacement_whose_first_answer_was_lost_does_not_take_its_own_change_for_another() -> None:
    replace = tasks.replace_task(RUN["task_id"], TaskSpec(name="t", command="true"), version=3)
    with pytest.raises(Unreachable) as caught:
        play(replace, LOST, problem(412, "precondition-failed"))
    assert caught.value.in_doubt


@pytest.mark.parametrize("before", [(), (REFUSED,)], ids=["at once", "after a try that nobody heard"])
def test_a_version_that_somebody_else_has_changed_is_told(before: tuple[Fault, ...]) -> None:
    replace = tasks.replace_task(RUN["task_id"], TaskSpec(name="t", command="true"), version=3)
    with pytest.raises(PreconditionFailed):
        play(replace, *before, problem(412, "precondition-failed"))


def test_a_refusal_carries_the_problem_document() -> None:
    body = {"type": "urn:dts:problem:conflict", "title": "t", "status": 409, "detail": "d", "code": "name_taken"}
    with pytest.raises(Conflict, match=r"^d$") as caught:
        play(runs.run(RUN["id"]), json_reply(body, 409))
    assert caught.value.problem.code == "name_taken"
    assert caught.value.kind == "conflict"


def test_an_answer_that_is_no_problem_document_is_quoted() -> None:
    with pytest.raises(NotFound, match="HTTP status 404: <html>proxy"):
        play(runs.run(RUN["id"]), Reply(404, {}, b"<html>proxy"))


def test_a_success_that_is_not_the_contract_is_a_bad_answer() -> None:
    with pytest.raises(BadAnswer):
        play(runs.run(RUN["id"]), Reply(200, {}, b"<html>welcome"))


def test_many_tasks_go_in_batches_that_the_server_takes() -> None:
    specs = [TaskSpec(name=f"t{n}", command=["true"]) for n in range(5)]
    ids = [{"id": RUN["task_id"], "run_id": None}]
    told: list[int] = []
    answers = [json_reply({"items": ids * count}, 201) for count in (2, 2, 1)]
    created, requests, _ = play(tasks.submit_many(specs, batch=2, progress=told.append), *answers)
    assert len(created) == 5
    assert told == [2, 4, 5]
    sent = [name["name"] for request in requests for name in msgspec.json.decode(request.body)]
    assert sent == [spec.name for spec in specs]


def test_a_batch_is_cut_by_size_too() -> None:
    wide = TaskSpec(name="t", command=["x" * (3 * 1024 * 1024)])
    assert [len(lines) for lines in tasks.batches([wide] * 5)] == [2, 2, 1]


def test_a_listing_walks_pages_until_there_is_no_cursor() -> None:
    listing: Listing[Any] = runs.runs(task="a/b", state="failed", page=2)
    first, requests, _ = play(listing.next_page(), json_reply({"items": [RUN, RUN], "next_cursor": "c=1"}))
    assert len(first) == 2
    assert not listing.finished
    assert requests[0].target == "/api/tasks/a%2Fb/runs?state=failed&limit=2"
    second, requests, _ = play(listing.next_page(), json_reply({"items": [], "next_cursor": None}))
    assert second == []
    assert listing.finished
    assert requests[0].target.endswith("&cursor=c%3D1")


def test_waiting_polls_less_and_less_often_until_the_run_has_ended() -> None:
    done = {**RUN, "state": "failed", "exit_code": 3}
    run, _, pauses = play(waiting.wait(RUN["id"]), json_reply(RUN), json_reply(RUN), json_reply(done))
    assert run.exit_code == 3
    assert pauses[1] < pauses[2]


def test_waiting_gives_up_when_the_time_has_passed() -> None:
    with pytest.raises(WaitTimeout, match=r"still running after 0\.03 s"):
        play(waiting.wait(RUN["id"], timeout=0.03), *[json_reply(RUN)] * 3)


def test_what_stands_in_a_path_or_query_cannot_change_the_request() -> None:
    assert path_of("api", "queues", "a/../b?c", "pause") == "/api/queues/a%2F..%2Fb%3Fc/pause"
    request = build("GET", "/x", query={"a": "1&b=2", "c": True, "d": None})
    assert request.target == "/x?a=1%26b%3D2&c=true"


def stay(
    operation: Operation[T], answer: Callable[[], Reply], listen: Callable[[Listen], bool]
) -> tuple[T, list[float]]:
    """Run an operation that waits; return its result and the pauses it made."""
    pauses: list[float] = []
    exchange = with_retries(operation, POLICY, lambda: 1.0)
    try:
        step = next(exchange)
        while True:
            if isinstance(step, Pause):
                pauses.append(step.seconds)
                step = exchange.send(sum(pauses))
            elif isinstance(step, Listen):
                step = exchange.send(Heard(sum(pauses), listen(step)))
            else:
                step = exchange.send(answer())
    except StopIteration as end:
        return end.value, pauses


def test_a_long_wait_is_told_by_the_stream_and_goes_on_in_it_where_it_was() -> None:
    opened: list[str | None] = []
    ended = msgspec.json.encode({"kind": "run", "id": RUN["id"], "state": "completed", "at": None})
    streams = [b"retry: 1\nid: 7\n\n", b"id: 9\nevent: run\ndata: " + ended + b"\n\n"]

    def listen(step: Listen) -> bool:
        opened.append(step.request.headers.get("last-event-id"))
        assert step.feed(streams.pop(0))
        return True

    def answer() -> Reply:
        return json_reply({**RUN, "state": "running" if streams else "completed"})

    (run,), _ = stay(waiting.wait_many([RUN["id"]]), answer, listen)
    assert run.state == "completed"
    assert opened == [None, "7"]


def test_where_there_is_no_stream_a_wait_asks_once_a_second() -> None:
    answers = itertools.chain([RUN] * 16, itertools.repeat({**RUN, "state": "failed"}))
    listened: list[Listen] = []
    run, pauses = stay(
        waiting.wait(RUN["id"]), lambda: json_reply(next(answers)), lambda step: bool(listened.append(step))
    )
    assert run.state == "failed"
    assert len(listened) == 1
    assert pauses[-2:] == [1.0, 1.0]
