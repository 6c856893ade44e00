"""The methods of both clients, defined once: each is an operation, run to its end by the client that it is called on.

On a `Client` a method returns its result, on an `AsyncClient` an awaitable of it; a listing is an iterator of items
there and an asynchronous one here. Type checkers see each signature as the operation's own.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

from scheduler.client import audit as on_audit
from scheduler.client import calendars as on_calendars
from scheduler.client import events as on_events
from scheduler.client import fleet, waiting
from scheduler.client import keys as on_keys
from scheduler.client import runs as on_runs
from scheduler.client import secrets as on_secrets
from scheduler.client import tasks as on_tasks
from scheduler.client import workflows as on_workflows
from scheduler.client.exchange import Operation
from scheduler.client.pages import Listing

if TYPE_CHECKING:
    from scheduler.client.asynchronous import AsyncClient
    from scheduler.client.sync import Client

P = ParamSpec("P")
T = TypeVar("T")


class Method(Generic[P, T]):
    """An operation as a method of a client."""

    def __init__(self, operation: Callable[P, Operation[T]]) -> None:
        self._operation = operation

    @overload
    def __get__(self, client: None, owner: type) -> Callable[P, Operation[T]]: ...
    @overload
    def __get__(self, client: Client, owner: type) -> Callable[P, T]: ...
    @overload
    def __get__(self, client: AsyncClient, owner: type) -> Callable[P, Coroutine[Any, Any, T]]: ...
    def __get__(self, client: Client | AsyncClient | None, owner: type) -> object:
        """Bind the operation to a client; on the class, where `help` looks, it is the bare operation."""
        if client is None:
            return self._operation
        run = client.run_operation

        @functools.wraps(self._operation)
        def call(*args: P.args, **kwargs: P.kwargs) -> object:
            return run(self._operation(*args, **kwargs))

        return call


class ListingMethod(Generic[P, T]):
    """A listing as a method of a client: the items of all pages, each fetched when it is needed."""

    def __init__(self, listing: Callable[P, Listing[T]]) -> None:
        self._listing = listing

    @overload
    def __get__(self, client: None, owner: type) -> Callable[P, Listing[T]]: ...
    @overload
    def __get__(self, client: Client, owner: type) -> Callable[P, Iterator[T]]: ...
    @overload
    def __get__(self, client: AsyncClient, owner: type) -> Callable[P, AsyncIterator[T]]: ...
    def __get__(self, client: Client | AsyncClient | None, owner: type) -> object:
        """Bind the listing to a client; on the class, where `help` looks, it is the bare listing."""
        if client is None:
            return self._listing
        walk = client.walk

        @functools.wraps(self._listing)
        def call(*args: P.args, **kwargs: P.kwargs) -> object:
            return walk(self._listing(*args, **kwargs))

        return call


class Methods:
    """What can be asked of a server; see the operations for what each takes, returns and raises."""

    submit = Method(on_tasks.submit)
    submit_batch = Method(on_tasks.submit_batch)
    submit_many = Method(on_tasks.submit_many)
    task = Method(on_tasks.task)
    tasks = ListingMethod(on_tasks.tasks)
    replace_task = Method(on_tasks.replace_task)
    edit_task = Method(on_tasks.edit_task)
    delete_task = Method(on_tasks.delete_task)
    trigger = Method(on_tasks.trigger)
    pause_task = Method(on_tasks.pause_task)
    resume_task = Method(on_tasks.resume_task)
    cancel_task = Method(on_tasks.cancel_task)
    plan = Method(on_tasks.plan)
    backfill = Method(on_tasks.backfill)
    fires = ListingMethod(on_tasks.fires)

    run = Method(on_runs.run)
    attempts = Method(on_runs.attempts)
    explain = Method(on_runs.explain)
    cancel_run = Method(on_runs.cancel_run)
    retry_run = Method(on_runs.retry_run)
    wait = Method(waiting.wait)
    wait_many = Method(waiting.wait_many)
    logs = Method(on_runs.logs)
    load_checkpoint = Method(on_runs.load_checkpoint)
    fence_holds = Method(on_runs.fence_holds)
    runs = ListingMethod(on_runs.runs)

    calendars = ListingMethod(on_calendars.calendars)
    calendar = Method(on_calendars.calendar)
    put_calendar = Method(on_calendars.put_calendar)
    delete_calendar = Method(on_calendars.delete_calendar)

    create_workflow = Method(on_workflows.create_workflow)
    workflows = ListingMethod(on_workflows.workflows)
    workflow = Method(on_workflows.workflow)
    replace_workflow = Method(on_workflows.replace_workflow)
    delete_workflow = Method(on_workflows.delete_workflow)
    start_workflow = Method(on_workflows.start_workflow)
    workflow_runs = ListingMethod(on_workflows.workflow_runs)
    workflow_run = Method(on_workflows.workflow_run)
    cancel_workflow_run = Method(on_workflows.cancel_workflow_run)
    rerun_workflow_run = Method(on_workflows.rerun_workflow_run)

    workers = ListingMethod(fleet.workers)
    drain_worker = Method(fleet.drain_worker)
    queues = ListingMethod(fleet.queues)
    pause_queue = Method(fleet.pause_queue)
    resume_queue = Method(fleet.resume_queue)
    dead_letters = ListingMethod(fleet.dead_letters)
    replay_dead_letters = Method(fleet.replay_dead_letters)
    discard_dead_letters = Method(fleet.discard_dead_letters)
    health = Method(fleet.health)
    ready = Method(fleet.ready)

    publish_event = Method(on_events.publish_event)
    events = ListingMethod(on_events.events)
    event_of_run = Method(on_events.event_of_run)

    store_secret = Method(on_secrets.store_secret)
    secrets = ListingMethod(on_secrets.secrets)
    delete_secret = Method(on_secrets.delete_secret)
    audit = ListingMethod(on_audit.audit)
    create_key = Method(on_keys.create_key)
    keys = ListingMethod(on_keys.keys)
    revoke_key = Method(on_keys.revoke_key)
    create_namespace = Method(on_keys.create_namespace)
    namespaces = ListingMethod(on_keys.namespaces)
    set_quotas = Method(on_keys.set_quotas)
    delete_namespace = Method(on_keys.delete_namespace)
