"""Backlogs and histories, written straight into the tables: a million submits would take longer than what they are for.

The rows are what the API and the workers would have left behind, as far as any statement looks at them. Their ids carry
times of this week, so that they stand in the partition that new work also goes to.
"""

from __future__ import annotations

from typing import Any

_CHUNK = 100_000

# `$1` rows of `$2::queue`; `made` are their times: the last hour, or less if the week has only just begun.
_NEW = """
WITH clock AS MATERIALIZED (
  SELECT dts_now() AS at, least(interval '1 hour', dts_now() - date_trunc('week', dts_now(), 'UTC')) AS span
), new AS MATERIALIZED (
  SELECT (left(dts_first_id_at(made)::text, 14) || '7' || substr(gen_random_uuid()::text, 16))::uuid AS task_id,
         (left(dts_first_id_at(made)::text, 14) || '7' || substr(gen_random_uuid()::text, 16))::uuid AS run_id,
         made, $2::text AS queue
  FROM (
    SELECT clock.at - clock.span * (1 - n / $1::float8) AS made FROM clock, generate_series(1, $1::integer) AS n
  ) AS t
), task AS (
  INSERT INTO tasks (id, recurring, namespace, name, queue, spec, occurrences,
                     created_at, created_by, updated_at, updated_by)
  SELECT task_id, false, 'default', 'bench', queue,
         jsonb_build_object('name', 'bench', 'command', jsonb_build_array('/bin/true'), 'queue', queue),
         1, made, 'bench', made, 'bench'
  FROM new
)
"""

_WAITING = (
    _NEW
    + """
INSERT INTO runs (id, task_id, namespace, queue, lane, priority, state, trigger, run_at,
                  created_at, created_by, max_attempts)
SELECT run_id, task_id, 'default', queue, queue, 5, 'pending', 'once', made, made, 'bench', 1
FROM new
"""
)

_FINISHED = (
    _NEW
    + """
, fenced AS MATERIALIZED (
  SELECT new.*, nextval('fence_seq') AS fence FROM new
), attempt AS (
  INSERT INTO attempts (run_id, attempt, fence, worker_id, outcome, reason, exit_code,
                        started_at, finished_at, task_version)
  SELECT run_id, 1, fence, '00000000-0000-7000-8000-000000000000', 'completed', NULL, 0, made, made, 1
  FROM fenced
)
INSERT INTO runs (id, task_id, namespace, queue, lane, priority, state, trigger, run_at, created_at, created_by,
                  queued_at, started_at, first_started_at, finished_at, dispatch_seq, attempt, fence, max_attempts,
                  exit_code, task_version, version)
SELECT run_id, task_id, 'default', queue, queue, 5, 'completed', 'once', made, made, 'bench',
       made, made, made, made, 1, 1, fence, 1, 0, 1, 3
FROM fenced
"""
)

# What each transition sets, for every run of the lane `$1` that has come so far.
_LIFE = (
    """state = 'queued', queued_at = run_at, dispatch_seq = 1
       WHERE lane = $1 AND state = 'pending' AND unmet = 0 AND NOT held""",
    """state = 'running', worker_id = '00000000-0000-7000-8000-000000000000', attempt = 1, fence = nextval('fence_seq'),
       started_at = run_at, first_started_at = run_at, task_version = 1
       WHERE lane = $1 AND state = 'queued'""",
    """state = 'completed', worker_id = NULL, finished_at = run_at, exit_code = 0
       WHERE lane = $1 AND state = 'running' AND worker_id = '00000000-0000-7000-8000-000000000000'""",
)

_LANE = """
INSERT INTO lanes (lane, namespace, queue, executor, requires) VALUES ($1, 'default', $1, 'process', '{}')
ON CONFLICT DO NOTHING
"""


async def add_waiting(database: Any, count: int, *, queue: str = "default") -> None:
    """Add tasks with a due, pending run of /bin/true each, without telling anybody."""
    await database.execute(_LANE, queue)
    await _add(database, _WAITING, count, queue)


async def add_finished(database: Any, count: int) -> None:
    """Add tasks with a completed run and its attempt each."""
    await _add(database, _FINISHED, count, "default")


async def add_churned(database: Any, count: int) -> None:
    """Add tasks whose runs have gone through all their states, each of which is left dead in its index."""
    for start in range(0, count, _CHUNK):
        async with database.transaction():  # nobody else sees a state on the way
            await database.execute(_WAITING, min(_CHUNK, count - start), "default", timeout=600)
            for change in _LIFE:
                await database.execute(f"UPDATE runs SET version = version + 1, {change}", "default", timeout=600)


async def settle(database: Any) -> None:
    """Do what autovacuum would have done by the time that so many rows had gathered one by one."""
    for table in ("tasks", "runs", "attempts"):
        await database.execute(f"VACUUM (ANALYZE) {table}")
    await database.execute("CHECKPOINT")


async def _add(database: Any, statement: str, count: int, queue: str) -> None:
    for start in range(0, count, _CHUNK):
        await database.execute(statement, min(_CHUNK, count - start), queue, timeout=600)
