"""How work enters: tasks and their first runs, committed before anybody is told that they were accepted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from functools import partial
from typing import Final, Literal
from uuid import UUID

import anyio
import asyncpg
import msgspec

from scheduler.domain.errors import Conflict
from scheduler.domain.gates import Gate, gate_name, gate_of
from scheduler.domain.lane import demands_of, lane_for
from scheduler.domain.run import Queued
from scheduler.domain.task import TaskSpec
from scheduler.failpoints import Point, reach
from scheduler.store.audit import Entry, write_audit
from scheduler.store.database import Database, Executor, Pinned, StoreUnavailable
from scheduler.store.edges import Edge, judge
from scheduler.store.execution import settle_onward
from scheduler.store.gates import ensure_gates
from scheduler.store.group_commit import GroupCommit

_TURNS: Final = 2
"""Turns of the event loop in which an offer leaves: what wakes it, and what sends it."""


class Origin(msgspec.Struct, frozen=True, gc=False):
    """The request that creates a task, where each such request is an entry of the audit log."""

    request_id: str
    action: str
    address: str | None


class NewTask(msgspec.Struct, frozen=True, gc=False):
    """A validated task with its ids. `run_id` is None for a recurring one, which instead brings its first fire.

    `straight` asks for the fast path: insert the run as `queued`, because nothing can block it and its lane has room.
    """

    task_id: UUID
    run_id: UUID | None
    namespace: str
    actor: str
    spec: TaskSpec
    spec_json: bytes
    edges: Sequence[Edge] = ()
    straight: bool = False
    traceparent: str | None = None
    fire_cursor: datetime | None = None
    next_fire_at: datetime | None = None
    origin: Origin | None = None

    @property
    def lane(self) -> str:
        """The lane that its runs travel in."""
        return lane_for(self.namespace, self.spec)


class Created(msgspec.Struct, frozen=True, gc=False):
    """What was committed. `queued` must be offered to the broker."""

    task_id: UUID
    run_id: UUID | None
    created_at: datetime
    queued: Queued | None


class Held(msgspec.Struct, frozen=True):
    """Whoever used an idempotency key before."""

    key: str
    fingerprint: bytes
    task_id: UUID

    def demand(self, fingerprint: bytes) -> None:
        """Raise Conflict (`idempotency_key_reused`) unless it was used for the request of this fingerprint."""
        if self.fingerprint != fingerprint:
            raise Conflict("idempotency_key_reused", f"the idempotency key {self.key!r} was used for another request")


class Intake:
    """Creates tasks. `run` must be running for `create` to return.

    `on_created` hears of all that was committed before those who wait for it do: runs are on their way to the workers
    while the answers are being written.
    """

    def __init__(self, database: Database, on_created: Callable[[Sequence[Created]], None] = lambda _: None) -> None:
        self._database = database
        self._on_created = on_created
        self._known_lanes: set[str] = set()
        self._known_since = database.sessions
        self._plain: GroupCommit[NewTask, Created] | None = GroupCommit(
            partial(self._flush_plain, database), max_batch=500
        )

    def within(self, pinned: Pinned, on_created: Callable[[Sequence[Created]], None]) -> Intake:
        """Return an intake whose creations are part of a transaction; it waits for no others and needs no `run`."""
        intake = Intake(pinned, on_created)
        intake._known_lanes, intake._known_since = set(self._known_lanes), self._known_since
        intake._plain = None
        return intake

    async def run(self) -> None:
        """Flush single creations until cancelled, on a connection of its own."""
        assert self._plain is not None, "within a transaction there is nothing to run"
        async with self._database.kept_connection() as own:
            await self._plain.run(partial(self._flush_plain, own))

    async def create(self, new: NewTask) -> Created:
        """Create one task; coalesced with others when nothing about it needs a transaction of its own.

        Raises Conflict (`name_taken`) for a recurring task whose name is in use, StoreUnavailable.
        """
        if new.run_id is not None and not new.edges:
            return await self._plain.submit(new) if self._plain else (await self._flush_plain(self._database, [new]))[0]
        return (await self.create_batch([[new]]))[0]

    async def create_batch(self, chunks: Iterable[Sequence[NewTask]]) -> list[Created]:
        """Create all or nothing, in one transaction.

        `chunks` may do its work (validating, encoding) while it is iterated: the next chunk is prepared while the
        database writes the one before. What it raises rolls everything back and is raised here.
        """
        created: list[Created] = []
        failure: Exception | None = None
        async with self._database.transaction() as executor:
            batch = _Batch(executor, self._database.sessions)
            send, receive = anyio.create_memory_object_stream[Sequence[NewTask]](1)

            async def write() -> None:
                nonlocal failure
                try:
                    with receive:
                        async for chunk in receive:
                            created.extend(await self._insert(batch, chunk))
                except Exception as error:  # noqa: BLE001  # raised again below, outside the task group
                    failure = error

            async with anyio.create_task_group() as group:
                group.start_soon(write, name="batch insert")
                with send:
                    try:
                        for chunk in chunks:
                            await send.send(chunk)
                            await anyio.lowlevel.checkpoint()
                    except anyio.BrokenResourceError:
                        pass  # the writer has failed and says why
                    except Exception as error:  # noqa: BLE001  # raised again below, outside the task group
                        failure = error
                        group.cancel_scope.cancel()
            if failure is not None:
                raise failure
            await batch.skip_hopeless()
        await self._committed(batch)
        self._on_created(created)
        return created

    async def held(self, namespace: str, key: str) -> Held | None:
        """Return who holds an idempotency key now, None if nobody does."""
        return await _holder(self._database, namespace, key)

    async def free(self, namespace: str, held: Held) -> None:
        """Let go of an idempotency key whose task was deleted, unless it is somebody else's by now."""
        await self._database.execute("free_key", namespace, held.key, held.task_id)

    async def create_once(self, new: NewTask, key: str, fingerprint: bytes) -> Created | Held:
        """Create one task under an idempotency key that is held for as long as the task is kept.

        Returns Held if the key was used before with the same fingerprint; raises Conflict (`idempotency_key_reused`)
        if with another one.
        """
        async with self._database.transaction() as executor:
            batch = _Batch(executor, self._database.sessions)
            took = await executor.fetchval("hold_key", new.namespace, key, fingerprint, new.task_id, new.run_id)
            if took is None:
                held = await _holder(executor, new.namespace, key)
                if held is None:
                    raise Conflict("in_flight", f"what held the idempotency key {key!r} is just forgotten; ask again")
                held.demand(fingerprint)
                return held
            created = await self._insert(batch, [new])
            await batch.skip_hopeless()
        await self._committed(batch)
        self._on_created(created)
        return created[0]

    async def ensure_lanes(self, executor: Executor, tasks: Iterable[tuple[str, TaskSpec]]) -> set[str]:
        """Store the lanes of (namespace, spec) pairs, for the leader and the workers to find; return the new ones.

        Their gates are stored too, each time: there may be any number of these.
        """
        if self._known_since != self._database.sessions:
            self._known_since = self._database.sessions
            self._known_lanes.clear()
        unknown = {}
        gates: dict[str, Gate] = {}
        for namespace, spec in tasks:
            if (gate := gate_of(namespace, spec)) is not None:
                gates[gate.gate] = gate
            lane = lane_for(namespace, spec)
            if lane not in self._known_lanes:
                unknown[lane] = (lane, namespace, spec.queue, spec.executor, msgspec.json.encode(demands_of(spec)))
        if unknown:
            rows = [unknown[lane] for lane in sorted(unknown)]
            await executor.execute("insert_lanes", *(list(column) for column in zip(*rows, strict=True)))
        if gates:
            await ensure_gates(executor, gates.values())
        return set(unknown)

    async def _flush_plain(self, executor: Executor, new: Sequence[NewTask]) -> list[Created]:
        since = self._database.sessions
        await self._ensure_own_lanes(executor, new)
        if self._plain and len(new) == 1 and new[0].straight:
            created = await self._insert_ahead(executor, new)
        else:
            created = await insert_once(executor, new, [0] * len(new))
            await reach(Point.INTAKE_COMMITTED, StoreUnavailable)
            self._on_created(created)
        if since != self._database.sessions:  # it may be another server that has the runs than had the lanes
            await self._ensure_own_lanes(executor, new)
        return created

    async def _ensure_own_lanes(self, executor: Executor, new: Sequence[NewTask]) -> None:
        since = self._database.sessions
        lanes = await self.ensure_lanes(executor, ((task.namespace, task.spec) for task in new))
        self._know(lanes, since)

    def _know(self, lanes: set[str], since: int) -> None:
        if since == self._database.sessions:
            self._known_lanes |= lanes

    async def _insert_ahead(self, executor: Executor, new: Sequence[NewTask]) -> list[Created]:
        """Offer a run while it is being written to disk, which is what a submit that comes alone waits for longest.

        A claim is on disk before its command starts, and all that was committed before the claim with it; whoever
        submitted hears of it once it is there. So what a crash of PostgreSQL takes away was neither started nor
        acknowledged.
        """
        created = await insert_once(executor, new, [0], "insert_once_ahead")
        await reach(Point.INTAKE_COMMITTED, StoreUnavailable)
        self._on_created(created)
        for _ in range(_TURNS):
            await anyio.lowlevel.checkpoint()
        await reach(Point.INTAKE_FORCING, StoreUnavailable)
        try:
            await executor.execute("force_log")
        except asyncpg.PostgresError as error:  # inserting again would not help
            raise StoreUnavailable(f"force_log: {error}") from error
        return created

    async def _committed(self, batch: _Batch) -> None:
        """Remember the batch's lanes."""
        await reach(Point.INTAKE_COMMITTED, StoreUnavailable)
        self._know(batch.lanes, batch.since)

    async def _insert(self, batch: _Batch, chunk: Sequence[NewTask]) -> list[Created]:
        batch.lanes |= await self.ensure_lanes(batch.executor, ((new.namespace, new.spec) for new in chunk))
        return await batch.insert(chunk)


class _Batch:
    """One transaction that creates tasks chunk by chunk."""

    def __init__(self, executor: Executor, since: int) -> None:
        self.executor = executor
        self.since = since
        """Sessions that had been opened when it began."""
        self._count = 0
        self._runs: set[UUID] = set()
        self._hopeless: list[UUID] = []
        self.lanes: set[str] = set()

    async def insert(self, chunk: Sequence[NewTask]) -> list[Created]:
        """Insert one chunk; its edges may point at anything in the same batch, earlier or later."""
        first_index, self._count = self._count, self._count + len(chunk)
        once = [new for new in chunk if new.run_id is not None]
        recurring = [new for new in chunk if new.run_id is None]
        results = {created.task_id: created for created in await self._insert_once(once)} if once else {}
        if recurring:
            taken = await self._insert_recurring(recurring)
            for index, new in enumerate(chunk, first_index):
                if new.task_id in taken:
                    raise Conflict("name_taken", f"/{index}/name: a recurring task is already named {new.spec.name!r}")
            if entries := [_entry(new, new.origin) for new in recurring if new.origin is not None]:
                await write_audit(self.executor, entries)
            now = await self.executor.fetchval("database_now")
            results |= {new.task_id: Created(new.task_id, None, now, None) for new in recurring}
        return [results[new.task_id] for new in chunk]

    async def skip_hopeless(self) -> None:
        """End the runs whose dependencies cannot hold, now that every edge of the batch stands."""
        if self._hopeless:
            rows = await self.executor.fetch("skip_unsatisfiable", self._hopeless)
            await settle_onward(self.executor, rows, ())

    async def _insert_recurring(self, batch: Sequence[NewTask]) -> set[UUID]:
        rows = await self.executor.fetch(
            "insert_recurring",
            [new.task_id for new in batch],
            [new.namespace for new in batch],
            [new.actor for new in batch],
            [new.spec.name for new in batch],
            [new.spec.queue for new in batch],
            [new.spec_json for new in batch],
            [new.fire_cursor for new in batch],
            [new.next_fire_at for new in batch],
        )
        return {new.task_id for new in batch} - {row["id"] for row in rows}

    async def _insert_once(self, batch: Sequence[NewTask]) -> list[Created]:
        self._runs.update(new.run_id for new in batch if new.run_id is not None)
        edges = [edge for new in batch for edge in new.edges]
        if not edges:
            return await insert_once(self.executor, batch, [0] * len(batch))
        judged = iter(await judge(self.executor, edges, in_batch=self._runs))
        unmet: list[int] = []
        rows: list[tuple[object, ...]] = []
        for new in batch:
            waiting = 0
            for position, edge in enumerate(new.edges):
                upstream_run_id, state = next(judged)
                waiting += state == "waiting"
                if state == "impossible" and new.run_id is not None:
                    self._hopeless.append(new.run_id)
                rows.append(
                    (
                        new.run_id,
                        position,
                        edge.upstream_task_id,
                        upstream_run_id,
                        edge.upstream_fire,
                        edge.condition,
                        state,
                    )
                )
            unmet.append(waiting)
        created = await insert_once(self.executor, batch, unmet)
        await self.executor.execute("insert_dependencies", *(list(column) for column in zip(*rows, strict=True)))
        return created


async def _holder(executor: Executor, namespace: str, key: str) -> Held | None:
    row = await executor.fetchrow("held_key", namespace, key)
    return None if row is None else Held(key=key, **dict(row))


def _entry(new: NewTask, origin: Origin) -> Entry:
    return Entry(
        namespace=new.namespace,
        actor=new.actor,
        action=origin.action,
        object=str(new.task_id),
        request_id=origin.request_id,
        status=201,
        version_after=1,
        address=origin.address,
    )


async def insert_once(
    executor: Executor,
    batch: Sequence[NewTask],
    unmet: Sequence[int],
    statement: Literal["insert_once", "insert_once_ahead"] = "insert_once",
) -> list[Created]:
    """Insert one-off tasks and their runs in one statement, and with them what the audit log says of it."""
    origins = [new.origin for new in batch]
    states = ["queued" if new.straight and not new.edges else "pending" for new in batch]
    specs = [new.spec for new in batch]
    lanes = [new.lane for new in batch]
    at = await executor.fetchval(
        statement,
        [new.task_id for new in batch],
        [new.run_id for new in batch],
        [new.namespace for new in batch],
        [new.actor for new in batch],
        [spec.name for spec in specs],
        [spec.queue for spec in specs],
        lanes,
        [spec.priority for spec in specs],
        [new.spec_json for new in batch],
        states,
        [spec.run_at for spec in specs],
        [spec.delay or 0.0 for spec in specs],
        [spec.schedule_timeout for spec in specs],
        unmet,
        [spec.retry.max_attempts for spec in specs],
        [new.traceparent for new in batch],
        [gate_name(new.namespace, new.spec) for new in batch],
        [None if origin is None else origin.request_id for origin in origins],
        [None if origin is None else origin.action for origin in origins],
        [None if origin is None else origin.address for origin in origins],
    )
    return [
        Created(
            new.task_id,
            new.run_id,
            at,
            Queued(
                run_id=new.run_id,
                lane=lane,
                priority=new.spec.priority,
                run_at=new.spec.run_at or at,
                seq=1,
                traceparent=new.traceparent,
            )
            if state == "queued" and new.run_id is not None
            else None,
        )
        for new, state, lane in zip(batch, states, lanes, strict=True)
    ]
