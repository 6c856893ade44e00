"""A whole worker on real PostgreSQL and Valkey, without a leader: what becomes of the runs that it is offered."""

from __future__ import annotations

import os
import re
import resource
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NoReturn

import anyio
import msgspec
import pytest
import structlog.testing

from scheduler.broker import Broker
from scheduler.domain.clock import SystemClock
from scheduler.domain.run_tokens import read
from scheduler.domain.task import Checkpoint, Limits, Retry, RetryRule
from scheduler.failpoints import Point
from scheduler.store.database import Database
from scheduler.store.outputs import Outputs
from scheduler.worker import dispatch
from scheduler.worker.launch import Launcher
from scheduler.worker.machine import open_more_files, task_identity
from scheduler.worker.page import LeasePage
from scheduler.worker.processes import Processes
from scheduler.worker.settings import WorkerSettings
from tests.broker.support import connected
from tests.roles.worker_role_support import Works, worker
from tests.roles.worker_support import alive, files_limited, first_line
from tests.support import until
from tests.support.failpoints import failing, held
from tests.support.lanes import lane_state
from tests.support.rows import run_row


@pytest.fixture
async def works(database: Database, broker: Broker) -> AsyncIterator[Works]:
    async with worker(database, broker) as running:
        yield running


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A directory that commands may write to, whoever they run as."""
    for path in (tmp_path, *tmp_path.parents):
        if path == Path("/tmp"):
            break
        path.chmod(0o777)
    return tmp_path


async def test_a_run_completes_with_its_output_and_outputs(works: Works) -> None:
    run_id = await works.submit('echo hello; echo "rows=17" > "$DTS_OUTPUT_FILE"; echo "$DTS_RUN_ID $DTS_ATTEMPT"')
    row = await works.ended_row(run_id)
    assert (row["state"], row["exit_code"], row["reason"]) == ("completed", 0, "exit:0")
    assert row["output_tail"] == f"hello\n{run_id} 1\n"
    assert msgspec.json.decode(row["outputs"]) == {"rows": "17"}
    assert await works.output(run_id) == row["output_tail"].encode()
    (attempt,) = await works.query("SELECT * FROM attempts WHERE run_id = $1", run_id)
    assert attempt["outcome"] == "completed"
    assert attempt["started_at"] <= attempt["finished_at"]


@pytest.mark.parametrize(
    ("command", "fields", "reason"),
    [
        ("exit 7", {}, "exit:7"),
        ("kill -KILL $$", {}, "signal:KILL"),
        (["/no/such"], {}, "spawn_error:executable_not_found"),
        (["/bin/true"], {"user": "no-such-user"}, "spawn_error:unknown_user"),
        (["/bin/true"], {"workdir": "/no/such"}, "spawn_error:workdir_not_found"),
        (["/no/such"], {"limits": Limits(files=64)}, "spawn_error:executable_not_found"),
        ("sleep 60", {"timeout": 0.1}, "timeout"),
        ("trap '' TERM; exec sleep 60", {"timeout": 0.1, "kill_timeout": 0.1}, "timeout"),
        ("echo x; sleep 60", {"stall_timeout": 0.2}, "stalled"),
        ('echo x > "$DTS_CHECKPOINT_FILE"; sleep 60', {"stall_timeout": 0.2}, "stalled"),
    ],
)
async def test_each_way_to_fail_has_its_reason(
    works: Works, command: str | list[str], fields: dict[str, object], reason: str
) -> None:
    row = await works.run(command, **fields)
    assert (row["state"], row["reason"]) == ("failed", reason)
    if reason.startswith("spawn_error"):
        assert row["output_tail"].startswith("dts: ")


@pytest.mark.parametrize(("fields", "reason"), [({"timeout": 0.2}, "timeout"), ({"stall_timeout": 0.2}, "stalled")])
async def test_a_command_that_takes_long_to_end_is_looked_after_no_more_often(
    works: Works, monkeypatch: pytest.MonkeyPatch, fields: dict[str, float], reason: str
) -> None:
    looks = 0
    look_after = Processes.look_after

    def counted(processes: Processes) -> None:
        nonlocal looks
        looks += 1
        look_after(processes)

    monkeypatch.setattr(Processes, "look_after", counted)
    row = await works.run("trap '' TERM; exec sleep 60", kill_timeout=0.5, **fields)
    assert (row["state"], row["reason"]) == ("failed", reason)
    assert looks < 20


async def test_a_checkpoint_is_a_sign_of_life(works: Works) -> None:
    save = 'echo $i > "$DTS_CHECKPOINT_FILE.new"; mv "$DTS_CHECKPOINT_FILE.new" "$DTS_CHECKPOINT_FILE"'
    row = await works.run(f"for i in 1 2 3 4 5 6; do {save}; sleep 0.5; done", stall_timeout=1.5)
    assert (row["state"], row["reason"]) == ("completed", "exit:0")


async def test_a_failure_with_attempts_left_waits_for_its_next(works: Works) -> None:
    run_id = await works.submit("exit 1", retry=Retry(max_attempts=2, initial_interval=3600.0, max_interval=7200.0))
    row = await works.row_when(run_id, "pending")
    assert (row["failures"], row["attempt"], row["reason"]) == (1, 1, "exit:1")
    assert row["run_at"] > row["started_at"]


async def test_a_command_gets_a_token_for_its_own_attempt(works: Works) -> None:
    row = await works.run('echo "$DTS_RUN_TOKEN"; echo "$DTS_FENCE"', timeout=60.0)
    text, fence = row["output_tail"].split()
    key = (await works.query("SELECT run_token_key FROM installation"))[0]["run_token_key"]
    now = SystemClock().now().timestamp()
    token = read(key, text, now)
    assert token is not None
    assert (token.run_id, token.fence, token.namespace) == (row["id"], int(fence), "default")
    assert now < token.expires < now + 60 + 600


async def test_limits_on_open_files_hold_in_the_command(works: Works) -> None:
    row = await works.run("ulimit -n", limits=Limits(files=77))
    assert row["output_tail"] == "77\n"


async def test_a_worker_opens_all_the_files_that_it_may_and_its_commands_as_many_as_before(
    database: Database, broker: Broker
) -> None:
    with files_limited(500):
        async with worker(database, broker) as works:
            row = await works.run("ulimit -Sn")
            soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert row["output_tail"] == "500\n"
    assert soft == most > 500


@pytest.mark.parametrize(("slots", "said"), [(1, 0), (1_000_000_000, 1)])
def test_a_worker_that_may_not_open_enough_files_for_its_slots_says_so(slots: int, said: int) -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    with structlog.testing.capture_logs() as lines, files_limited(soft):
        open_more_files(slots)
    assert len(lines) == said


def programs_loaded(directory: Path) -> list[str]:
    """Return the programs of which the loader has written there."""
    texts = "".join(path.read_text() for path in directory.glob("loaded.*"))
    return re.findall(r"initialize program: (.*)", texts)


async def test_nothing_but_the_command_gets_its_variables(works: Works, shared: Path) -> None:
    """What prepares a command must not be made to load what the task names: it holds more than the task may."""
    env = {"LD_DEBUG": "files", "LD_DEBUG_OUTPUT": f"{shared}/loaded", "no.identifier": "1"}
    row = await works.run(["/usr/bin/env"], env=env, limits=Limits(files=77))
    assert {f"{name}={value}" for name, value in env.items()} <= set(row["output_tail"].splitlines())
    assert programs_loaded(shared) == ["/usr/bin/env"]


async def test_output_that_is_no_text_is_kept_as_it_is_and_shown_as_far_as_possible(works: Works) -> None:
    run_id = await works.submit(r"printf 'a\377\000b'")
    row = await works.ended_row(run_id)
    assert await works.output(run_id) == b"a\xff\x00b"
    assert row["output_tail"] == "a\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}b"


async def test_only_the_newest_output_is_kept(works: Works) -> None:
    run_id = await works.submit("yes 0123456789 | head -c 3000000; echo end", limits=Limits(output=100_000))
    assert (await works.ended_row(run_id))["state"] == "completed"
    (stored,) = await works.query(
        "SELECT min(position) AS first, sum(length(data)) AS size FROM output_chunks WHERE run_id = $1", run_id
    )
    assert stored["first"] >= 3_000_004 - 100_000
    assert 0 < stored["size"] <= 100_000
    assert (await works.output(run_id)).endswith(b"end\n")


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        (b"nonsense", "no key=value"),
        (b'{"a": "\\u0000"}', "NUL"),
        (b"\xff=1", "UTF-8"),
        (b"a=" + b"x" * 300_000, "longer"),
    ],
)
async def test_outputs_that_cannot_be_stored_are_said_to_be_so(
    works: Works, shared: Path, written: bytes, problem: str
) -> None:
    source = shared / "source"
    source.write_bytes(written)
    row = await works.run(f'cat {source} > "$DTS_OUTPUT_FILE"')
    assert (row["state"], row["outputs"]) == ("completed", None)
    assert problem in row["output_tail"]


async def test_a_link_in_place_of_the_outputs_is_not_followed(works: Works, shared: Path) -> None:
    secret = shared / "secret"
    secret.write_text("password=1\n")
    row = await works.run(f'ln -s {secret} "$DTS_OUTPUT_FILE"')
    assert row["outputs"] is None
    assert "outputs were not stored" in row["output_tail"]


async def test_a_cancelled_run_ends_cancelled_whatever_its_exit_code(
    database: Database, broker: Broker, shared: Path
) -> None:
    note = shared / "note"
    async with worker(database, broker, lease=300.0) as works:  # no renewal finds it before the announcement does
        run_id = await works.submit(f"trap 'exit 0' TERM; echo on > {note}; for i in $(seq 1200); do sleep 0.05; done")
        await first_line(note)
        await works.query("UPDATE runs SET cancel_requested = true WHERE id = $1", run_id)
        (row,) = await works.query("SELECT worker_id FROM runs WHERE id = $1", run_id)
        await works.broker.publish(f"worker:{row['worker_id']}")
        row = await works.ended_row(run_id)
    assert (row["state"], row["reason"], row["exit_code"]) == ("cancelled", "cancelled", 0)


async def test_a_cancel_that_nobody_announces_is_found_by_the_lease(database: Database, broker: Broker) -> None:
    async with worker(database, broker, lease=2.0) as works:
        run_id = await works.submit("sleep 100")
        await works.row_when(run_id, "running")
        await works.query("UPDATE runs SET cancel_requested = true WHERE id = $1", run_id)
        assert (await works.ended_row(run_id))["state"] == "cancelled"


async def test_a_run_that_is_taken_away_is_killed_and_not_reported(
    database: Database, broker: Broker, shared: Path
) -> None:
    async with worker(database, broker, lease=2.0) as works:
        note = shared / "note"
        run_id = await works.submit(f"echo $$ > {note}; exec sleep 100")
        pid = int(await first_line(note))
        await works.query(
            "UPDATE runs SET state = 'pending', worker_id = NULL, fence = nextval('fence_seq') WHERE id = $1", run_id
        )
        await until(lambda: not alive(pid))
        (row,) = await works.query("SELECT state, reason FROM runs WHERE id = $1", run_id)
        assert (row["state"], row["reason"]) == ("pending", None)


async def test_a_claim_whose_answer_was_lost_is_given_back(database: Database, broker: Broker) -> None:
    async with worker(database, broker, lease=5.0) as works:
        await until(lambda: works.query("SELECT 1 FROM workers WHERE state = 'live'"))
        run_id = await works.submit("true", push=False)
        await works.query(
            "UPDATE runs SET state = 'running', worker_id = (SELECT id FROM workers), fence = nextval('fence_seq'),"
            " attempt = 1, started_at = now(), first_started_at = now(), task_version = 1 WHERE id = $1",
            run_id,
        )
        row = await works.row_when(run_id, "pending")
        assert (row["reason"], row["losses"], row["failures"]) == ("claim_lost", 0, 0)


async def test_claims_that_cannot_be_given_back_do_not_cost_the_lease(database: Database, broker: Broker) -> None:
    async with worker(database, broker, lease=2.0) as works:
        await until(lambda: works.query("SELECT 1 FROM workers WHERE state = 'live'"))
        run_ids = [await works.submit("true", push=False) for _ in range(8)]
        await works.query(
            "UPDATE runs SET state = 'running', worker_id = (SELECT id FROM workers), fence = nextval('fence_seq'),"
            " attempt = 1, started_at = now(), first_started_at = now(), task_version = 1 WHERE id = ANY($1)",
            run_ids,
        )
        async with database.session() as other, other.transaction():
            await other.execute("SELECT FROM runs WHERE id = ANY($1) FOR UPDATE", run_ids)
            await until(lambda: works.query("SELECT 1 FROM pg_locks WHERE NOT granted"))
            (before,) = await works.query("SELECT renewal FROM worker_leases")
            await until(lambda: works.query("SELECT 1 FROM worker_leases WHERE renewal > $1 + 8", before["renewal"]))
            assert len(await works.query("SELECT FROM workers")) == 1
        for run_id in run_ids:
            assert (await works.row_when(run_id, "pending"))["reason"] == "claim_lost"


async def test_work_is_found_in_postgresql_when_redis_never_brings_it(works: Works) -> None:
    run_id = await works.submit("true", push=False)
    assert (await works.ended_row(run_id))["state"] == "completed"


async def test_what_redis_brings_after_postgresql_has_filled_the_slots_waits_for_one(
    database: Database, broker: Broker, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "_BLOCK", 30.0)  # the read that begins with a free slot goes on all the time
    go = shared / "go"
    async with worker(database, broker, concurrency=1) as works:
        first = await works.submit(f"until [ -e {go} ]; do sleep 0.02; done", push=False)
        await works.row_when(first, "running")
        second = await works.submit("true")

        async def given_back() -> bool:
            row = await run_row(database, second)
            assert row["state"] == "queued"
            return sum((await broker.stats([row["lane"]]))[row["lane"]].ready) == 1

        await until(given_back)
        go.touch()
        row = await works.ended_row(second)
        assert (row["state"], row["attempt"]) == ("completed", 1)


async def test_a_drained_worker_lets_commands_finish_and_then_leaves(
    database: Database, broker: Broker, shared: Path
) -> None:
    async with worker(database, broker) as works:
        go, note = shared / "go", shared / "note"
        run_id = await works.submit(f"echo on > {note}; until [ -e {go} ]; do sleep 0.02; done")
        await first_line(note)
        works.stop.set()
        await until(lambda: works.query("SELECT 1 FROM workers WHERE state = 'draining'"))
        late = await works.submit("true")
        go.touch()
        assert (await works.ended_row(run_id))["state"] == "completed"
        await until(works.ended.is_set)
        (row,) = await works.query("SELECT state, end_reason FROM workers")
        assert (row["state"], row["end_reason"]) == ("left", "drained")
        (row,) = await works.query("SELECT state FROM runs WHERE id = $1", late)
        assert row["state"] == "queued"


async def test_what_outlasts_the_drain_saves_a_checkpoint_and_is_requeued_uncharged(
    database: Database, broker: Broker, shared: Path
) -> None:
    async with worker(database, broker, drain_timeout=0.1) as works:
        note = shared / "note"
        run_id = await works.submit(
            'trap \'echo 42 > "$DTS_CHECKPOINT_FILE.new"; mv "$DTS_CHECKPOINT_FILE.new" "$DTS_CHECKPOINT_FILE"\' USR1;'
            f" echo on > {note}; for i in $(seq 1200); do sleep 0.05; done",
            checkpoint=Checkpoint(wait=5.0),
        )
        await first_line(note)
        works.stop.set()
        row = await works.row_when(run_id, "pending")
        assert (row["reason"], row["failures"], row["losses"]) == ("drained", 0, 0)
        (saved,) = await works.query("SELECT data FROM checkpoints WHERE run_id = $1", run_id)
        assert saved["data"] == b"42\n"
        await until(works.ended.is_set)
        await works.query("UPDATE runs SET state = 'queued', dispatch_seq = 5, queued_at = now() WHERE id = $1", run_id)

    async with worker(database, broker) as works:
        # The same command would wait for a signal again: this one reads what the first one saved.
        await works.query(
            """UPDATE tasks SET spec = jsonb_set(spec, '{command}', '"cat $DTS_CHECKPOINT_FILE"') FROM runs r"""
            " WHERE r.id = $1 AND tasks.id = r.task_id",
            run_id,
        )
        row = await works.ended_row(run_id)
        assert (row["state"], row["output_tail"], row["attempt"]) == ("completed", "42\n", 2)


async def test_what_is_claimed_after_all_were_told_to_end_is_requeued_uncharged_and_never_begins(
    database: Database, broker: Broker, shared: Path
) -> None:
    note, told, begun = shared / "note", shared / "told", shared / "begun"
    async with worker(database, broker, drain_timeout=0.0) as works:
        stubborn = f"trap 'echo on > {told}' TERM; echo on > {note}; while :; do sleep 0.02; done"
        await works.submit(stubborn, kill_timeout=3.0)
        await first_line(note)
        with held(Point.CLAIM_COMMITTED) as claim:
            late = await works.submit(f"touch {begun}")
            with anyio.fail_after(10):
                await claim.reached.wait()
            works.stop.set()
            await first_line(told)
        row = await works.row_when(late, "pending")
        assert (row["reason"], row["failures"], row["losses"]) == ("drained", 0, 0)
    assert not begun.exists()


async def test_a_checkpoint_that_was_asked_for_is_waited_for_though_an_older_one_is_not_stored_yet(
    database: Database, broker: Broker, shared: Path
) -> None:
    async with worker(database, broker, drain_timeout=0.1) as works:
        note = shared / "note"
        save = 'echo {} > "$DTS_CHECKPOINT_FILE.new"; mv "$DTS_CHECKPOINT_FILE.new" "$DTS_CHECKPOINT_FILE"'
        run_id = await works.submit(
            f"trap 'sleep 0.5; {save.format('new')}' USR1; {save.format('old')};"
            f" echo on > {note}; for i in $(seq 1200); do sleep 0.05; done",
            checkpoint=Checkpoint(wait=10.0),
        )
        await first_line(note)
        works.stop.set()
        await works.row_when(run_id, "pending")
        (saved,) = await works.query("SELECT data FROM checkpoints WHERE run_id = $1", run_id)
        assert saved["data"] == b"new\n"


async def test_what_outlasts_the_drain_ends_where_a_rule_for_losses_forbids_another_attempt(
    database: Database, broker: Broker, shared: Path
) -> None:
    async with worker(database, broker, drain_timeout=0.1) as works:
        note = shared / "note"
        rules = [RetryRule(reasons=["lost"], action="dead_letter")]
        run_id = await works.submit(f"echo on > {note}; exec sleep 60", retry=Retry(rules=rules))
        await first_line(note)
        works.stop.set()
        row = await works.ended_row(run_id)
        assert (row["state"], row["reason"], row["losses"]) == ("dead_letter", "lost", 1)


async def test_a_checkpoint_that_is_too_long_is_refused_aloud(works: Works) -> None:
    row = await works.run('head -c 2000000 /dev/zero > "$DTS_CHECKPOINT_FILE"; exit 1')
    assert "checkpoint was not stored" in row["output_tail"]
    assert not await works.query("SELECT 1 FROM checkpoints")


async def test_at_most_one_suspect_executes_at_a_time(works: Works, shared: Path) -> None:
    go = shared / "go"
    command = f"until [ -e {go} ]; do sleep 0.02; done"
    ids = [await works.submit(command, push=False) for _ in range(2)]
    await works.query("UPDATE runs SET suspect = true")
    await until(lambda: works.query("SELECT 1 FROM runs WHERE state = 'pending' AND attempt = 1"))
    rows = await works.query("SELECT state, suspect, failures, losses FROM runs WHERE id = ANY($1)", ids)
    assert {row["state"] for row in rows} == {"running", "pending"}
    assert all(row["suspect"] and row["failures"] == row["losses"] == 0 for row in rows)
    go.touch()


async def test_suspects_follow_each_other_without_being_offered_again(works: Works, shared: Path) -> None:
    command = f"mkdir {shared}/alone && sleep 0.05 && rmdir {shared}/alone"
    ids = [await works.submit(command, push=False) for _ in range(4)]
    await works.query("UPDATE runs SET suspect = true")
    rows = [await works.ended_row(run_id) for run_id in ids]
    assert [(row["state"], row["attempt"]) for row in rows] == [("completed", 1)] * 4


async def test_many_runs_at_once_all_end_once(works: Works) -> None:
    ids = [await works.submit(["/bin/true"]) for _ in range(60)]
    for run_id in ids:
        assert (await works.ended_row(run_id))["attempt"] == 1
    (row,) = await works.query("SELECT count(*) AS n FROM attempts WHERE outcome = 'completed'")
    assert row["n"] == 60


@pytest.mark.parametrize(
    ("command", "state", "reason"),
    [("exec sleep 60", "pending", "lost"), ("trap 'exit 0' TERM; sleep 60 & wait", "completed", "exit:0")],
)
async def test_a_command_that_the_guard_has_asked_to_end_has_not_failed(
    database: Database,
    redis_url: str,
    shared: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    state: str,
    reason: str,
) -> None:
    """The worker was stopped for a while, goes on before its deadline, and finds its command ended by the guard."""
    page = LeasePage.new()
    monkeypatch.setattr(LeasePage, "new", lambda: page)
    async with connected(redis_url) as broker, worker(database, broker) as works:
        note = shared / "note"
        run_id = await works.submit(f"echo $$ > {note}; {command}")
        pid = int(await first_line(note))
        page.asked = 1.0
        os.killpg(pid, signal.SIGTERM)
        row = await works.row_when(run_id, state)
        assert (row["reason"], row["failures"], row["losses"]) == (reason, 0, 0)


async def test_a_run_reaches_only_a_worker_that_satisfies_it_by_redis_or_without_it(
    database: Database, broker: Broker
) -> None:
    """It is offered, and it waits longest and most urgently in PostgreSQL; whoever lacks the label gets neither."""
    demands = {"requires": {"disk": "fast"}, "priority": 9}
    async with worker(database, broker, labels={"disk": "slow"}) as slow:
        offered = await slow.submit("true", **demands)
        found = await slow.submit("true", push=False, **demands)
        plain = [await slow.submit("true"), await slow.submit("true", push=False)]  # the latter is found in PostgreSQL
        assert {(await slow.ended_row(run))["state"] for run in plain} == {"completed"}
        for run in (offered, found):
            row = await run_row(database, run)
            assert (row["state"], row["attempt"], row["worker_id"]) == ("queued", 0, None)
        lane = await lane_state(broker, row["lane"])
        assert (sum(lane.ready), lane.undelivered, lane.pending, lane.workers) == (1, 0, 0, 0)
        async with worker(database, broker, labels={"disk": "fast"}) as fast:
            assert {(await fast.ended_row(run))["state"] for run in (offered, found)} == {"completed"}
    by = await slow.query("SELECT DISTINCT w.labels ->> 'disk' FROM attempts a JOIN workers w ON w.id = a.worker_id"
                          " WHERE a.run_id = ANY($1::uuid[])", [offered, found])  # fmt: skip
    assert [row[0] for row in by] == ["fast"]


async def test_a_directory_that_cannot_be_made_fails_the_run_and_not_the_worker(
    database: Database, broker: Broker, shared: Path
) -> None:
    async with worker(database, broker, state_dir=str(shared)) as works:
        (scratch,) = await until(lambda: list(shared.glob("dts-scratch-*")))
        in_the_way = scratch / str(task_identity(WorkerSettings().task_user).uid)
        in_the_way.touch()
        row = await works.run("true")
        assert (row["state"], row["reason"]) == ("failed", "spawn_error:scratch_not_made")
        in_the_way.unlink()
        assert (await works.run("true"))["state"] == "completed"


@pytest.fixture
async def neighbour(works: Works) -> AsyncIterator[None]:
    """A run that is not harmed by what becomes of others."""
    run_id = await works.submit("sleep 60")
    await works.row_when(run_id, "running")
    yield
    row = await run_row(works.database, run_id)
    assert (row["state"], row["attempt"]) == ("running", 1)


def unforeseen(*_: object, **__: object) -> NoReturn:
    raise ZeroDivisionError


@pytest.mark.usefixtures("neighbour")
async def test_an_attempt_that_its_worker_fails_to_start_ends_alone(
    works: Works, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Launcher, "launch", unforeseen)
    row = await works.run("true")
    assert (row["state"], row["reason"]) == ("failed", "spawn_error:internal")
    assert row["output_tail"].startswith("dts: ")


@pytest.mark.usefixtures("neighbour")
async def test_an_attempt_whose_end_its_worker_does_not_understand_is_lost_alone(works: Works) -> None:
    with failing(Point.COMMAND_ENDED, ZeroDivisionError()) as left:
        row = await works.run("true", on_lost="fail")
    assert not left
    assert (row["state"], row["reason"]) == ("failed", "lost")


@pytest.mark.usefixtures("neighbour")
async def test_what_cannot_be_kept_of_an_attempt_costs_nothing_else(
    works: Works, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = shared / "go"
    tried = anyio.Event()

    async def append(*_: object) -> NoReturn:
        tried.set()
        unforeseen()

    monkeypatch.setattr(Outputs, "append", append)
    run_id = await works.submit(f'echo a=1 > "$DTS_OUTPUT_FILE"; echo x; until [ -e {go} ]; do sleep 0.02; done')
    with anyio.fail_after(10):
        await tried.wait()
    go.touch()
    row = await works.ended_row(run_id)
    assert (row["state"], row["output_tail"], row["outputs"]) == ("completed", "x\n", b'{"a": "1"}')


@pytest.mark.usefixtures("neighbour")
async def test_an_outcome_that_is_refused_is_reported_without_what_the_command_said(works: Works) -> None:
    with failing(Point.FINISH_SENDING, ZeroDivisionError()) as left:
        row = await works.run('echo a=1 > "$DTS_OUTPUT_FILE"; echo x')
    assert not left
    assert (row["state"], row["exit_code"], row["outputs"]) == ("completed", 0, None)
