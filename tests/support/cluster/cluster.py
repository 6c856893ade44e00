"""Any number of each role, on a PostgreSQL and a Valkey that belong to them alone."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

import asyncpg
import httpx2
import redis
from anyio.from_thread import BlockingPortal

from scheduler.control.election import CHANNEL
from scheduler.embedded.addresses import postgres_url, valkey_url
from scheduler.store import migrate
from scheduler.store.database import Database
from tests.support.cluster.links import Link, relayed, tcp_listener, unix_listener
from tests.support.cluster.member import Member
from tests.support.cluster.namespaces import Wire, namespace
from tests.support.ports import free_port
from tests.support.servers import ServerHandle, Servers
from tests.support.submitting import Submitting
from tests.support.waiting import until_sync

Network = Literal["direct", "relay", "namespace"]
"""How processes reach the servers: by their sockets, through relays of ours, or through interfaces of their own."""

TERMINAL = ("completed", "failed", "cancelled", "skipped", "dead_letter")
LIVE = ("pending", "queued", "running")


class Cluster(Submitting):
    """A system under attack. Times are in seconds; what is not said is quick to fail, so that tests are short."""

    def __init__(
        self,
        home: Path,
        postgres: ServerHandle,
        valkey: ServerHandle,
        portal: BlockingPortal,
        stack: ExitStack,
        settings: Mapping[str, object],
    ) -> None:
        self.home = home
        self.postgres = postgres
        self.valkey = valkey
        self.members: list[Member] = []
        self._portal = portal
        self._stack = stack
        self.settings = settings
        self._numbers = itertools.count(1)
        self._client = stack.enter_context(httpx2.Client(timeout=10))
        self._ports: dict[str, int] = {}

    # --- who there is

    def add(self, role: str, *, network: Network = "direct", release: Path | None = None, **settings: object) -> Member:
        """Start one more process of a role; `settings` are `section__key`, `release` is the tree of another release."""
        name = f"{role}-{next(self._numbers)}"
        values = dict(self.settings) | {key.replace("__", "."): value for key, value in settings.items()}
        prefix: Sequence[str] = ()
        ways: dict[str, Link | Wire] = {}
        urls = {"postgres": self.postgres.url, "redis": self.valkey.url}
        if network == "relay":
            for server in urls:
                urls[server], ways[server] = self._relay(name, server)
        elif network == "namespace":
            inside = self._stack.enter_context(namespace(*urls))
            prefix, ways = inside.prefix, dict(inside.wires)
            for server, wire in inside.wires.items():
                urls[server] = self._reach(name, server, wire)
        values = {"database.url": urls["postgres"], "redis.url": urls["redis"]} | values
        if role == "api":
            values["api.port"] = self._ports[name] = free_port()
        if role == "worker":
            values.setdefault("worker.name", name)
        member = Member(role, name, self.home, values, ways=ways, prefix=prefix, release=release)
        self.members.append(member)
        self._stack.callback(member.end)
        member.start()
        return member

    def of(self, role: str) -> list[Member]:
        return [member for member in self.members if member.role == role]

    def leader(self) -> Member:
        """Return the scheduler that holds the term. Raises LookupError while none does."""
        rows = self.sql("SELECT pid FROM leadership")
        for member in self.of("scheduler"):
            if member.alive and rows[0]["pid"] == member.pid:
                return member
        raise LookupError("nobody leads")

    def until_ready(self, seconds: float = 30.0) -> None:
        """Wait until every process of every role does its work."""
        until_sync(lambda: all(self.is_up(api) for api in self.of("api")), seconds, "every api answers")
        if self.of("scheduler"):
            until_sync(self.leader, seconds, "somebody leads")
        until_sync(lambda: self.ready_workers() == len(self.of("worker")), seconds, "every worker is registered")

    def until_schedulers_listen(self, seconds: float = 30.0) -> None:
        """Wait until every scheduler would hear that the term is free; one that was just started may not yet."""

        def listening() -> bool:
            with redis.Redis.from_url(self.valkey.url) as client:
                channels = client.pubsub_numsub(*client.pubsub_channels(f"*{CHANNEL}"))
            return sum(count for _, count in channels) >= len(self.of("scheduler"))

        until_sync(listening, seconds, "every scheduler listens")

    def ready_workers(self) -> int:
        """Count the workers that exist and are registered; one that was killed stays registered for a while."""
        registered = {row["pid"] for row in self.sql("SELECT pid FROM workers WHERE state = 'live'")}
        return sum(member.worker_pid in registered for member in self.of("worker"))

    def is_up(self, api: Member) -> bool:
        return bool(self._client.get(f"{self.url(api)}/health/ready").status_code == 200)

    # --- talking to it

    def url(self, api: Member | None = None) -> str:
        return f"http://127.0.0.1:{self._ports[(api or self.of('api')[0]).name]}"

    def request(self, method: str, path: str, *, api: Member | None = None, **options: Any) -> httpx2.Response:
        return self._client.request(method, self.url(api) + path, **options)

    def submit_many(
        self, tasks: int | Sequence[Mapping[str, Any]], *, api: Member | None = None, **fields: Any
    ) -> list[str]:
        """Create tasks at once, each with fields of its own, and return the ids of their runs."""
        each = [{}] * tasks if isinstance(tasks, int) else tasks
        body = [{"name": f"t{number}", "command": "exec /bin/true", **fields, **own} for number, own in enumerate(each)]
        answer = self.request("POST", "/api/tasks/batch", api=api, json=body)
        assert answer.status_code == 201, answer.text
        return [item["run_id"] for item in answer.json()["items"]]

    def sql(self, query: str, *args: object) -> list[Any]:
        """Ask PostgreSQL on a connection that nobody attacks."""
        return self._portal.call(self._sql, query, args)

    async def _sql(self, query: str, args: Sequence[object]) -> list[Any]:
        connection = await asyncpg.connect(self.postgres.url, timeout=5, server_settings={"application_name": "test"})
        try:
            return await connection.fetch(query, *args)
        finally:
            await connection.close(timeout=5)

    def states(self) -> dict[str, int]:
        """Count the runs by state."""
        return dict(self.sql("SELECT state, count(*) FROM runs GROUP BY state"))

    def runs(self, ids: Sequence[str]) -> list[Any]:
        """Return the rows of runs, in the order of `ids`."""
        rows = {str(row["id"]): row for row in self.sql("SELECT * FROM runs WHERE id = ANY($1::text[]::uuid[])", ids)}
        return [rows[run] for run in ids]

    def run(self, run_id: str) -> Any:
        return self.runs([run_id])[0]

    def attempts(self, run_id: str) -> list[Any]:
        return self.sql("SELECT * FROM attempts WHERE run_id = $1::text::uuid ORDER BY attempt", run_id)

    def until_completed(self, ids: Sequence[str], seconds: float = 30.0) -> list[Any]:
        """Wait until all of these runs have ended, and return their rows; fail unless all have completed."""

        def ended() -> bool:
            left = [run for run in self.runs(ids) if run["state"] not in TERMINAL]
            if left:
                raise AssertionError(f"{len(left)} are left, such as {dict(left[0])}")
            return True

        until_sync(ended, seconds, f"{len(ids)} runs have ended")
        rows = self.runs(ids)
        assert {(row["state"], row["reason"]) for row in rows} == {("completed", "exit:0")}
        return rows

    def mend(self) -> None:
        """Bring everything back: processes, ways, clocks; and wait until all is quiet."""
        for member in self.members:
            for way in member.ways.values():
                way.mend()
            member.move_clock(0.0)
            if member.alive and member.role == "worker" and member.worker_pid is None:
                member.stop()  # its guard waits longer and longer before it starts another worker
            if not member.alive:
                member.start()
        self.until_ready()
        self.until_quiet()

    def until_quiet(self, seconds: float = 30.0) -> None:
        """Wait until no run is live."""

        def quiet() -> bool:
            states = self.states()
            left = {state: states[state] for state in LIVE if state in states}
            if left:
                raise AssertionError(f"left: {left}")
            return True

        until_sync(quiet, seconds, "every run ends")

    def host_of(self, run_id: str) -> Member:
        """Return the worker that executes a run. Raises LookupError while none does."""
        rows = self.sql(
            "SELECT w.name FROM runs r JOIN workers w ON w.id = r.worker_id WHERE r.id = $1::text::uuid", run_id
        )
        return next(member for member in self.of("worker") if [member.name] == [row["name"] for row in rows])

    # --- how its processes reach the servers

    def _relay(self, name: str, server: str) -> tuple[str, Link]:
        directory = self.home / f"{name}.{server}"
        directory.mkdir()
        if server == "postgres":
            path, url = directory / ".s.PGSQL.5432", postgres_url(directory)
        else:
            path, url = directory / "valkey.sock", valkey_url(directory)
        return url, self._linked(f"{name} to {server}", unix_listener(path), server)

    def _reach(self, name: str, server: str, wire: Wire) -> str:
        listener = tcp_listener(wire.here)
        host, port = listener.getsockname()
        self._linked(f"{name} to {server}", listener, server)
        if server == "redis":
            return f"redis://{host}:{port}/0"
        return f"postgresql://dts@{host}:{port}/dts?sslmode=disable"

    def _linked(self, name: str, listener: socket.socket, server: str) -> Link:
        handle = self.postgres if server == "postgres" else self.valkey
        return self._stack.enter_context(relayed(name, self._portal, listener, handle.socket))


@contextmanager
def cluster(
    servers: Servers,
    home: Path,
    *,
    apis: int = 1,
    schedulers: int = 1,
    workers: int = 1,
    lock_ttl: float = 1.0,
    lease: float = 5.0,
    network: Network = "direct",
    prepare: Callable[[str], object] | None = None,
    **settings: object,
) -> Iterator[Cluster]:
    """Run a system until the block is left; `settings` (`section__key`) are for all of its processes.

    `prepare` makes the schema in the database of the URL that it gets; by default every migration does.
    """
    home.mkdir(parents=True, exist_ok=True)
    home.chmod(0o755)
    values: dict[str, object] = {
        "scheduler.lock_ttl": lock_ttl,
        "worker.lease": lease,
        "worker.concurrency": 4,
        "auth.development": "true",
    }
    values |= {key.replace("__", "."): value for key, value in settings.items()}
    name = servers.next_name()
    postgres, valkey = servers.new_postgres(name, crash_safe=True), servers.new_valkey(name)
    with ExitStack() as stack:
        for server in (postgres, valkey):
            server.start()
            stack.callback(server.stop)
        made = Cluster(home, postgres, valkey, servers.portal, stack, values)
        if prepare is None:
            servers.portal.call(_migrate, postgres.url)
        else:
            prepare(postgres.url)
        for role, count in (("api", apis), ("scheduler", schedulers), ("worker", workers)):
            for _ in range(count):
                made.add(role, network="relay" if network == "namespace" and role == "api" else network)
        made.until_ready()
        yield made


async def _migrate(url: str) -> None:
    database = await Database.connect(url, name="test", max_size=1)
    try:
        await migrate.up(database)
    finally:
        await database.close()
