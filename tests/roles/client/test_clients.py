"""Both clients against a running system: the same operations, blocking and awaited."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import AsyncIterator, Iterator
from uuid import UUID

import httpx2
import pytest

from scheduler.client import (
    NO_RETRIES,
    AsyncClient,
    Client,
    Conflict,
    InvalidRequest,
    LogChunk,
    NotFound,
    PreconditionFailed,
    RetryPolicy,
    TaskSpec,
    Unreachable,
    WaitTimeout,
)
from scheduler.domain.task import Dependency
from tests.support.ports import free_port
from tests.support.waiting import until_sync

NOBODY = UUID("00000000-0000-7000-8000-000000000000")


@pytest.fixture
def client(server: str) -> Iterator[Client]:
    with Client(server) as connected:
        yield connected


@pytest.fixture
async def async_client(server: str) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(server) as connected:
        yield connected


def test_a_task_is_submitted_waited_for_and_its_output_read(client: Client) -> None:
    task = client.submit(TaskSpec(name="hello", command="echo hello; echo oops >&2"))
    assert task.last_run is not None
    run = client.wait(task.last_run.id, timeout=20)
    assert (run.state, run.exit_code, run.task_id) == ("completed", 0, task.id)
    assert sorted(client.logs(run.id)) == sorted(b"hello\noops\n")
    chunks = [event for event in client.stream_logs(run.id) if isinstance(event, LogChunk)]
    assert "".join(chunk.text for chunk in chunks if chunk.stream == "stderr") == "oops\n"
    assert [attempt.outcome for attempt in client.attempts(run.id)] == ["completed"]
    assert client.task(task.id).status == "completed"


async def test_the_same_awaited(async_client: AsyncClient) -> None:
    task = await async_client.submit(TaskSpec(name="hello", command="echo hello"))
    assert task.last_run is not None
    events = [event async for event in async_client.stream_logs(task.last_run.id)]
    assert "".join(event.text for event in events if isinstance(event, LogChunk)) == "hello\n"
    assert (await async_client.wait(task.last_run.id, timeout=20)).state == "completed"
    assert [run.id async for run in async_client.runs(task=task.id)] == [task.last_run.id]


def test_both_clients_have_the_same_methods() -> None:
    def methods(kind: type) -> set[str]:
        return {name for name, _ in inspect.getmembers(kind, callable) if not name.startswith("_")}

    assert methods(Client) == methods(AsyncClient)


def test_output_is_streamed_while_the_command_runs(client: Client) -> None:
    command = "echo first; sleep 600; echo second"
    task = client.submit(TaskSpec(name="slow", command=command))
    assert task.last_run is not None
    seen = ""
    for event in client.stream_logs(task.last_run.id):
        assert isinstance(event, LogChunk)
        seen += event.text
        if seen == "first\n":
            client.cancel_run(task.last_run.id)
    assert seen == "first\n"
    assert client.run(task.last_run.id).state == "cancelled"


def test_many_tasks_go_in_several_batches_and_come_back_page_by_page(client: Client) -> None:
    specs = [TaskSpec(name=f"many-{n}", command=["/bin/true"], tags=["many"], delay=3600.0) for n in range(25)]
    created = client.submit_many(specs, batch=10)
    assert len({item.run_id for item in created}) == 25
    listed = list(client.tasks(tag="many", page=7))
    assert [task.id for task in listed] == [item.id for item in reversed(created)]
    for item in created:
        client.cancel_task(item.id)


def test_a_batch_with_dependencies_runs_in_order(client: Client) -> None:
    names = [f"step-{n}" for n in range(4)]
    specs = [
        TaskSpec(name=name, command=["/bin/true"], depends_on=[Dependency(task=before)] if before else [])
        for name, before in zip(names, [None, *names], strict=False)
    ]
    created = client.submit_batch(specs[::-1])
    runs = [client.wait(str(item.run_id), timeout=20) for item in reversed(created)]
    for before, after in itertools.pairwise(runs):
        assert before.finished_at is not None
        assert after.started_at is not None
        assert before.finished_at <= after.started_at


def test_a_refused_batch_points_at_the_task(client: Client) -> None:
    specs = [TaskSpec(name="fine", command=["x"]), TaskSpec(name="wrong", command=["x"], schedule="61 * * * *")]
    with pytest.raises(InvalidRequest) as caught:
        client.submit_batch(specs)
    assert caught.value.problem.errors[0].pointer == "/1/schedule"


def test_edits_are_guarded_by_version(client: Client) -> None:
    task = client.submit(TaskSpec(name="guarded", command=["x"], schedule="@yearly"))
    edited = client.edit_task(task.id, {"priority": 9}, version=task.version)
    assert (edited.priority, edited.version) == (9, task.version + 1)
    with pytest.raises(PreconditionFailed):
        client.edit_task(task.id, {"priority": 1}, version=task.version)
    replaced = client.replace_task(
        task.id, TaskSpec(name="guarded", command=["y"], schedule="@daily"), version=edited.version
    )
    assert (replaced.command, replaced.priority) == (["y"], 5)
    client.delete_task(task.id)
    with pytest.raises(NotFound):
        client.task(task.id)


def test_conflicts_and_unknown_things_are_told_apart(client: Client) -> None:
    client.submit(TaskSpec(name="unique", command=["x"], schedule="@yearly"))
    with pytest.raises(Conflict) as caught:
        client.submit(TaskSpec(name="unique", command=["x"], schedule="@yearly"))
    assert caught.value.problem.code == "name_taken"
    with pytest.raises(NotFound):
        client.run(NOBODY)
    with pytest.raises(NotFound):
        list(client.stream_logs(NOBODY))
    with pytest.raises(NotFound):
        client.load_checkpoint(NOBODY)


def test_a_run_that_cannot_start_explains_itself_and_is_not_waited_for_forever(client: Client) -> None:
    task = client.submit(TaskSpec(name="later", command=["x"], delay="1h"))
    assert task.last_run is not None
    assert [blocker.code for blocker in client.explain(task.last_run.id).blockers] == ["time"]
    with pytest.raises(WaitTimeout):
        client.wait(task.last_run.id, timeout=0.05)
    assert client.load_checkpoint(task.last_run.id) is None
    assert not client.fence_holds(task.last_run.id, 1)
    assert client.cancel_task(task.id).cancelled == [task.last_run.id]
    assert client.retry_run(task.last_run.id).state in {"pending", "queued", "running"}


def test_a_submit_whose_answer_is_lost_makes_one_task(server: str) -> None:
    class LosesTheFirstAnswer(httpx2.HTTPTransport):
        """Delivers each request, and drops the answer to the first."""

        lost = 0

        def handle_request(self, request: httpx2.Request) -> httpx2.Response:
            response = super().handle_request(request)
            if not self.lost:
                self.lost = 1
                response.read()
                response.close()
                raise httpx2.ReadError("the answer was lost", request=request)
            return response

    for key, name in (("precious-1", "with-a-key-of-its-own"), (None, "with-the-requests-key")):
        with Client(server, transport=LosesTheFirstAnswer(), retries=RetryPolicy(base=0.0)) as client:
            task = client.submit(TaskSpec(name=name, command=["/bin/true"], idempotency_key=key))
            assert [found.id for found in client.tasks(name=name)] == [task.id]
    unkeyed = RetryPolicy(base=0.0, keyed=False)
    with (
        Client(server, transport=LosesTheFirstAnswer(), retries=unkeyed) as client,
        pytest.raises(Unreachable) as caught,
    ):
        client.submit(TaskSpec(name="careless", command=["/bin/true"]))
    assert caught.value.in_doubt


def test_a_server_that_is_not_there_is_unreachable() -> None:
    with Client(f"http://127.0.0.1:{free_port()}", retries=NO_RETRIES) as client, pytest.raises(Unreachable) as caught:
        client.ready()
    assert not caught.value.in_doubt


def test_the_system_says_that_it_is_ready_and_who_works(client: Client) -> None:
    ready = until_sync(lambda: (answer := client.ready()).leader and answer.workers and answer)
    assert ready
    assert next(iter(client.workers())).state == "live"
    assert isinstance(list(client.queues()), list)


@pytest.mark.parametrize("server", ["localhost:8080", "ftp://x", "http://", ""])
def test_what_is_no_http_url_is_refused(server: str) -> None:
    with pytest.raises(ValueError, match="http://host:port"):
        Client(server)


def test_many_runs_are_waited_for_at_once(client: Client) -> None:
    specs = [TaskSpec(name=f"many-{n}", command=f"sleep {1 + n / 10}") for n in range(3)]
    ids = [created.run_id for created in client.submit_many(specs)]
    told: list[int] = []
    runs = client.wait_many([run_id for run_id in ids if run_id], timeout=30, progress=told.append)
    assert [run.id for run in runs] == ids
    assert {run.state for run in runs} == {"completed"}
    assert told[-1] == 3


async def test_many_runs_are_awaited_at_once(async_client: AsyncClient) -> None:
    specs = [TaskSpec(name=f"async-many-{n}", command="sleep 1.5") for n in range(3)]
    ids = [created.run_id for created in await async_client.submit_many(specs)]
    runs = await async_client.wait_many([run_id for run_id in ids if run_id], timeout=30)
    assert {run.state for run in runs} == {"completed"}
