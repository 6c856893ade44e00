"""The blocking client: sends what the operations ask for over `httpx2.Client`."""

from __future__ import annotations

import functools
import random
import time
from collections.abc import Callable, Iterator
from typing import Concatenate, ParamSpec, Self, TypeVar

import httpx2

from scheduler.client import DEFAULT_SERVER, fleet
from scheduler.client import runs as on_runs
from scheduler.client import tasks as on_tasks
from scheduler.client.exchange import Fault, Id, Operation, Pause, Reply, Request, with_retries
from scheduler.client.logs import LogEvent, LogStream
from scheduler.client.pages import Listing
from scheduler.client.retry import RetryPolicy
from scheduler.client.transport import arguments, fault_of, options, reply_of

P = ParamSpec("P")
T = TypeVar("T")


def _method(operation: Callable[P, Operation[T]]) -> Callable[Concatenate[Client, P], T]:
    @functools.wraps(operation)
    def call(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.run_operation(operation(*args, **kwargs))

    return call


def _listing(operation: Callable[P, Listing[T]]) -> Callable[Concatenate[Client, P], Iterator[T]]:
    @functools.wraps(operation)
    def walk(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        listing = operation(*args, **kwargs)
        while not listing.finished:
            yield from self.run_operation(listing.next_page())

    return walk


class Client:
    """Talks to one server, blocking. Use it as a context manager, or call `close`.

    Every method raises ApiError when the server refuses and Unreachable when it does not answer. `timeout` in
    seconds bounds each step of a request: connecting, sending, and each silence while answering.
    """

    def __init__(
        self,
        server: str = DEFAULT_SERVER,
        *,
        timeout: float = 30.0,
        retries: RetryPolicy | None = None,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        self._retries = retries or RetryPolicy()
        self._http = httpx2.Client(transport=transport, **options(server, timeout))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection."""
        self._http.close()

    submit = _method(on_tasks.submit)
    submit_batch = _method(on_tasks.submit_batch)
    submit_many = _method(on_tasks.submit_many)
    task = _method(on_tasks.task)
    tasks = _listing(on_tasks.tasks)
    replace_task = _method(on_tasks.replace_task)
    edit_task = _method(on_tasks.edit_task)
    delete_task = _method(on_tasks.delete_task)
    trigger = _method(on_tasks.trigger)
    pause_task = _method(on_tasks.pause_task)
    resume_task = _method(on_tasks.resume_task)
    cancel_task = _method(on_tasks.cancel_task)
    plan = _method(on_tasks.plan)

    run = _method(on_runs.run)
    runs = _listing(on_runs.runs)
    attempts = _method(on_runs.attempts)
    explain = _method(on_runs.explain)
    cancel_run = _method(on_runs.cancel_run)
    retry_run = _method(on_runs.retry_run)
    wait = _method(on_runs.wait)
    logs = _method(on_runs.logs)
    load_checkpoint = _method(on_runs.load_checkpoint)
    fence_holds = _method(on_runs.fence_holds)

    workers = _listing(fleet.workers)
    drain_worker = _method(fleet.drain_worker)
    queues = _listing(fleet.queues)
    pause_queue = _method(fleet.pause_queue)
    resume_queue = _method(fleet.resume_queue)
    dead_letters = _listing(fleet.dead_letters)
    replay_dead_letters = _method(fleet.replay_dead_letters)
    discard_dead_letters = _method(fleet.discard_dead_letters)
    ready = _method(fleet.ready)

    def stream_logs(self, run_id: Id) -> Iterator[LogEvent]:
        """Yield a run's output as it comes, until the run has ended; goes on where it was when cut off."""
        stream = LogStream(run_id, policy=self._retries)
        while True:
            why: Reply | Fault = Fault(sent=True, detail="the stream ended early")
            try:
                with self._http.stream(**arguments(stream.request())) as response:
                    if response.is_success:
                        for data in response.iter_bytes():
                            yield from stream.feed(data)
                    else:
                        response.read()
                        why = reply_of(response)
            except httpx2.HTTPError as error:
                why = fault_of(error)
            if stream.finished:
                return
            time.sleep(stream.cut_off(why, random.random()))  # noqa: S311 - jitter

    def run_operation(self, operation: Operation[T]) -> T:
        """Run any operation of `scheduler.client.tasks`, `.runs` or `.fleet` to its end."""
        exchange = with_retries(operation, self._retries, random.random)
        try:
            step = next(exchange)
            while True:
                step = exchange.send(self._perform(step))
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            exchange.close()

    def _perform(self, step: Request | Pause) -> Reply | Fault | float:
        if isinstance(step, Pause):
            time.sleep(step.seconds)
            return time.monotonic()
        try:
            return reply_of(self._http.request(**arguments(step)))
        except httpx2.HTTPError as error:
            return fault_of(error)
