-- fragment: changed_run
-- of `r`, a run
r.id, r.namespace, r.task_id, r.state, r.reason, r.attempt, r.version, r.queue,
greatest(r.created_at, r.queued_at, r.started_at, r.finished_at) AS at

-- name: changed_runs
-- reads the runs that were created (by id, from `$2` on), queued or ended since `$1`, and all that execute; up to `$3`
SELECT
-- include: changed_run
FROM runs r WHERE r.id >= $2
UNION ALL
SELECT
-- include: changed_run
FROM runs r WHERE r.finished_at >= $1 AND r.id < $2
UNION ALL
SELECT
-- include: changed_run
FROM runs r WHERE r.state = 'queued' AND r.queued_at >= $1 AND r.id < $2
UNION ALL
SELECT
-- include: changed_run
FROM runs r WHERE r.state = 'running' AND r.id < $2
LIMIT $3

-- name: runs_as_they_are
-- reads some runs
SELECT
-- include: changed_run
FROM runs r WHERE r.id = ANY($1::uuid[])

-- name: queued_runs
-- reads up to `$1` runs that stand queued
SELECT r.id FROM runs r WHERE r.state = 'queued' LIMIT $1

-- name: queued_no_longer
-- reads those of some runs that do not stand queued; `$2` and `$3` are the lowest and the highest of them
SELECT
-- include: changed_run
FROM runs r WHERE r.id = ANY($1::uuid[]) AND r.id BETWEEN $2 AND $3 AND r.state <> 'queued'

-- name: changed_tasks
-- reads the recurring tasks that were created, edited, paused, resumed or deleted since `$1`, up to `$2`
SELECT t.id, t.namespace, t.name, t.version, t.updated_at AS at,
       CASE WHEN t.deleted_at IS NOT NULL THEN 'deleted' WHEN t.paused THEN 'paused' ELSE 'active' END AS state
FROM tasks_recurring t WHERE t.updated_at >= $1
LIMIT $2

-- name: changed_workers
-- reads the workers that are there, and those that went since `$1`
SELECT w.id, w.name, w.registered_at AS at,
       CASE WHEN w.drain_requested AND w.state = 'live' THEN 'draining' ELSE w.state END AS state
FROM workers w WHERE w.state IN ('live', 'draining')
UNION ALL
SELECT w.id, w.name, w.ended_at AS at, w.state
FROM workers w WHERE w.state IN ('dead', 'left') AND w.ended_at >= $1
