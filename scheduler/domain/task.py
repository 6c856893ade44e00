"""What a user defines: the body of a task, exactly as it travels over HTTP and as it is stored.

Shapes and types are checked by msgspec while decoding (a wrong one is a 400); `scheduler.domain.validation` checks the
meaning (a 422) and returns the normalised form, in which every duration is a number of seconds. Defaults are left out
when encoding, so a stored task holds what its user said and no more.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

FORMAT = 1
"""The newest format of a stored task that this release understands. One that says `"format": 2` is left to releases
that do: no worker of this one claims its runs, no leader decides its fires. Raise it, and write it into the task, with
a field that older releases must not pass over."""

Duration = Annotated[
    float | str,
    Meta(description='Seconds as a number, or text such as "90s", "5m", "1h", "1d".', examples=[90, "5m"]),
]
Moment = Annotated[datetime, Meta(tz=True, description="RFC 3339 with an offset, for example 2030-01-31T08:00:00Z.")]
Name = Annotated[str, Meta(min_length=1, max_length=255)]
Priority = Annotated[int, Meta(ge=0, le=9, description="9 is most urgent.")]

PRIORITIES: Final = range(10)

Catchup = Literal["none", "last", "all"]
Overlap = Literal["skip", "buffer_one", "buffer_all", "cancel_other", "terminate_other", "allow_all"]
Condition = Literal["success", "failure", "completion"]
RuleAction = Literal["retry", "fail", "dead_letter"]


class Body(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, frozen=True):
    """Base of everything that a client sends: unknown fields are refused, never ignored."""


class SecretRef(Body, frozen=True, kw_only=True):
    """An environment value that only the worker decrypts."""

    secret: Name


class Dependency(Body, frozen=True, kw_only=True):
    """`task` is an id, else a name in the same batch, else the only live task so named."""

    task: Name
    on: Condition = "success"


class RetryRule(Body, frozen=True, kw_only=True):
    """The first rule whose conditions all match an attempt's end decides what becomes of it.

    `reason` matches the whole reason (`timeout`) or what stands before its colon (`exit` for `exit:3`). The loss of the
    worker matches by the reason `lost` alone, for it has no exit code and no signal; else `on_lost` decides about it.
    """

    exit_codes: list[int] | None = None
    signals: list[str] | None = None
    reasons: list[str] | None = None
    action: RuleAction


class Retry(Body, frozen=True, kw_only=True):
    """`max_attempts` counts failures of the command; losing a worker has a budget of its own."""

    max_attempts: Annotated[int, Meta(ge=1, le=1000)] = 1
    initial_interval: Duration = 1.0
    backoff: Annotated[float, Meta(ge=1, le=100)] = 2.0
    max_interval: Duration = 300.0
    max_elapsed: Duration | None = None
    rules: list[RetryRule] = []


class Concurrency(Body, frozen=True, kw_only=True):
    """At most `max_runs` runs that share `key` in a namespace are queued or running at once.

    Beyond that a run waits (`queue`), is cancelled (`cancel_newest`), or takes the place of the oldest, which are
    cancelled (`cancel_running`); one that is itself the oldest, as a retry may be, is cancelled.
    """

    key: Name
    max_runs: Annotated[int, Meta(ge=1, le=10_000)] = 1
    on_conflict: Literal["queue", "cancel_newest", "cancel_running"] = "queue"


class RateLimit(Body, frozen=True, kw_only=True):
    """At most `n` starts in any `per` among the runs that share `key` in a namespace, retries included."""

    key: Name
    n: Annotated[int, Meta(ge=1, le=10_000)]
    per: Duration


class Limits(Body, frozen=True, kw_only=True):
    """What one attempt may use: `cpu` in cores, `memory` and `output` in bytes (or "64M"), `pids`, `files`."""

    cpu: Annotated[float, Meta(gt=0)] | None = None
    memory: int | str | None = None
    pids: Annotated[int, Meta(ge=1)] | None = None
    files: Annotated[int, Meta(ge=1)] | None = None
    output: int | str | None = None


class Checkpoint(Body, frozen=True, kw_only=True):
    """Ask for a "checkpoint now" signal before a drain, timeout or preemption, and how long to wait for the file."""

    signal: str = "USR1"
    wait: Duration = 5.0


class TaskSpec(Body, frozen=True, kw_only=True):
    """The whole body of a task; only `name` and `command` are required."""

    name: Name
    command: Annotated[
        list[str] | str,
        Meta(
            description="A list is executed directly; a string runs under /bin/sh -c.", examples=[["/bin/true"], "date"]
        ),
    ]
    env: dict[str, str | SecretRef] = {}
    queue: Name = "default"
    priority: Priority = 5
    schedule: str | None = None
    timezone: str = "UTC"
    run_at: Moment | None = None
    delay: Duration | None = None
    starts_at: Moment | None = None
    ends_at: Moment | None = None
    jitter: Duration = 0.0
    catchup: Catchup = "last"
    catchup_window: Duration = 3600.0
    overlap: Overlap = "skip"
    depends_on: list[Dependency] = []
    timeout: Duration | None = 3600.0
    schedule_timeout: Duration | None = None
    retry: Retry = Retry()
    umask: Annotated[str, Meta(pattern=r"^[0-7]{1,4}(?![\s\S])")] | None = None
    dst_gap: Literal["skip", "shift"] = "skip"
    calendars: list[Name] = []
    fairness_key: Name | None = None
    stall_timeout: Duration | None = None
    concurrency: Concurrency | None = None
    rate_limit: RateLimit | None = None
    checkpoint: Checkpoint | None = None
    kill_signal: str = "TERM"
    kill_timeout: Duration = 10.0
    limits: Limits = Limits()
    executor: Name = "process"
    user: str | None = None
    workdir: str | None = None
    stdin: str | None = None
    tags: list[Name] = []
    labels: dict[str, str] = {}
    requires: dict[str, str] = {}
    on_lost: Literal["retry", "fail", "dead_letter"] = "retry"
    idempotency_key: Annotated[str, Meta(min_length=1, max_length=255)] | None = None
    retention: Duration | None = None


HISTORY: Final = 30 * 86400.0
"""Seconds for which runs are kept, at least, and so the longest `retention`, which is of what a run leaves."""

encode_spec = msgspec.json.Encoder().encode
decode_spec = msgspec.json.Decoder(TaskSpec).decode
