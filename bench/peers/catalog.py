"""The peers: how each is run in production, as its documentation recommends, and what is known of its durability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """One peer.

    In commands and variables, `{bin}` stands for the programs of its environment, `{apps}` for the applications,
    `{home}` for a place of its own, `{port}` for a free port, `{database}` and `{redis}` for the servers' URLs
    (`{address}`: the first without its scheme).

    `serve` is started `copies` times and never ends by itself; `setup` runs once on fresh servers; `submit` gets the
    arguments of `apps/work.py`. `durable` says what an acknowledged submit survives, `loses` what happens to work whose
    worker is killed: both as documented; `peers_loss` measures the second. One that `runs_flows` is given whole flows:
    `submit` then takes `ready`, or `chain` and `wide` with the number of tasks and the work in each.
    """

    name: str
    lock: str
    kind: Literal["python", "node"] = "python"
    setup: Sequence[Sequence[str]] = ()
    serve: Sequence[str]
    copies: int = 1
    submit: Sequence[str]
    environment: Mapping[str, str] = {}
    settings: str
    durable: str
    loses: str
    runs_flows: bool = False

    @property
    def package(self) -> str:
        """The package whose version is the peer's."""
        return {"airflow": "apache-airflow"}.get(self.lock, self.lock)


_REDIS = "Valkey, append-only file synced every second: up to a second of acknowledged work is lost with the machine"
POSTGRES = "PostgreSQL, synchronous commit: nothing acknowledged is lost"


def _python(name: str) -> list[str]:
    return ["{bin}/python", f"{{apps}}/{name}_app.py"]


PEERS = (
    Peer(
        name="Celery",
        lock="celery",
        serve=["{bin}/celery", "-A", "celery_app", "worker", "-c", "8", "-l", "WARNING", "--without-gossip",
               "--without-mingle"],
        submit=_python("celery"),
        settings="prefork, 8 processes, acks_late, reject_on_worker_lost, prefetch 4",
        durable=_REDIS,
        loses="unacknowledged messages come back after the visibility timeout, an hour by default",
    ),
    Peer(
        name="Dramatiq",
        lock="dramatiq",
        serve=["{bin}/dramatiq", "dramatiq_app", "-p", "2", "-t", "8"],
        submit=_python("dramatiq"),
        settings="2 processes of 8 threads",
        durable=_REDIS,
        loses="messages of a worker without heartbeat for a minute are requeued by one command in a thousand",
    ),
    Peer(
        name="Huey",
        lock="huey",
        serve=["{bin}/huey_consumer", "huey_app.huey", "-k", "thread", "-w", "8", "-q"],
        copies=2,
        submit=_python("huey"),
        settings="2 processes of 8 threads",
        durable=_REDIS,
        loses="a message is taken off its list before it is done: what a dead worker had taken is gone",
    ),
    Peer(
        name="RQ",
        lock="rq",
        serve=["{bin}/rq", "worker-pool", "-n", "2", "-q", "-l", "WARNING", "-u", "{redis}", "default"],
        submit=_python("rq"),
        settings="pool of 2 workers, a fork for every job, 3 retries, results not kept",
        durable=_REDIS,
        loses="jobs of a dead worker are found abandoned, and retried, when a worker next cleans up: every ten minutes",
    ),
    Peer(
        name="Taskiq",
        lock="taskiq",
        serve=["{bin}/taskiq", "worker", "--workers", "2", "--ack-type", "when_executed", "--log-level", "WARNING",
               "--max-async-tasks", "16", "taskiq_app:broker"],
        submit=_python("taskiq"),
        settings="Redis streams, 2 processes of 16 tasks, acknowledged when executed, idle timeout a minute",
        durable=_REDIS,
        loses="entries unacknowledged for the idle timeout are claimed again by the next worker that reads new ones",
    ),
    Peer(
        name="SAQ on Redis",
        lock="saq",
        serve=["{bin}/saq", "saq_app.settings", "--workers", "2", "-q"],
        submit=_python("saq"),
        environment={"BENCH_SAQ": "redis"},
        settings="2 processes of 10 jobs, timeout and heartbeat a minute, 3 retries",
        durable=_REDIS,
        loses="jobs of a dead worker are swept once their timeout is over",
    ),
    Peer(
        name="SAQ on PostgreSQL",
        lock="saq",
        serve=["{bin}/saq", "saq_app.settings", "--workers", "2", "-q"],
        submit=_python("saq"),
        environment={"BENCH_SAQ": "postgres"},
        settings="2 processes of 10 jobs, timeout a minute, 3 retries",
        durable=POSTGRES,
        loses="jobs of a dead worker are swept once their timeout is over",
    ),
    Peer(
        name="Procrastinate",
        lock="procrastinate",
        setup=[["{bin}/procrastinate", "--app", "procrastinate_app.app", "schema", "--apply"]],
        serve=["{bin}/procrastinate", "--app", "procrastinate_app.app", "worker", "-c", "8"],
        copies=2,
        submit=_python("procrastinate"),
        settings="2 processes of 8 jobs, LISTEN, a task that retries stalled jobs every minute",
        durable=POSTGRES,
        loses="jobs of a worker without heartbeat for 30 s are given back by the task that retries stalled jobs",
    ),
    Peer(
        name="PgQueuer",
        lock="pgqueuer",
        setup=[["{bin}/pgq", "--pg-dsn", "{database}", "install"]],
        serve=[*_python("pgqueuer"), "serve"],
        copies=2,
        submit=_python("pgqueuer"),
        settings="2 processes, batches of 10 (the default)",
        durable=POSTGRES,
        loses="jobs of a dead worker are picked again when their heartbeat is 30 s old",
    ),
    Peer(
        name="PgQueuer, batches of 100",
        lock="pgqueuer",
        setup=[["{bin}/pgq", "--pg-dsn", "{database}", "install"]],
        serve=[*_python("pgqueuer"), "serve"],
        copies=2,
        submit=_python("pgqueuer"),
        environment={"BENCH_BATCH": "100"},
        settings="2 processes, batches of 100",
        durable=POSTGRES,
        loses="jobs of a dead worker are picked again when their heartbeat is 30 s old",
    ),
    Peer(
        name="DBOS",
        lock="dbos",
        setup=[[*_python("dbos"), "setup"]],
        serve=[*_python("dbos"), "serve"],
        copies=2,
        submit=_python("dbos"),
        settings="2 processes of 32 workflows, polling every 0.1 s: each poll takes as many as are free",
        durable=POSTGRES,
        loses="an executor takes up its own workflows when it starts again under the same id",
    ),
    Peer(
        name="BullMQ",
        lock="bullmq",
        kind="node",
        serve=["node", "{env}/app.mjs", "serve"],
        copies=2,
        submit=["node", "{env}/app.mjs"],
        settings="2 processes of 16 jobs, finished jobs removed",
        durable=_REDIS,
        loses="jobs whose lock is not renewed for 30 s are moved back by the next look for stalled ones",
    ),
)  # fmt: skip
