-- fragment: run_columns
-- of `r`, a run, and `t`, its task
r.id, r.task_id, r.namespace, t.name AS task_name, r.state, r.reason, r.trigger, r.scheduled_for, r.run_at, r.created_at,
r.queued_at, r.started_at, r.finished_at, r.attempt, r.max_attempts, r.exit_code, r.failures, r.losses, r.worker_id,
r.outputs, r.output_tail, r.priority, r.queue, substr(r.traceparent, 4, 32) AS trace_id, r.cancel_requested, r.version

-- fragment: run_page
-- the runs of `chosen(id, position)` with how far `walked(id, position)` went
bottom AS MATERIALIZED (
  SELECT (SELECT id FROM walked ORDER BY position DESC LIMIT 1) AS floor, (SELECT count(*) FROM walked) AS walked
)
SELECT bottom.floor, bottom.walked, page.*
FROM bottom LEFT JOIN (
  SELECT chosen.position,
  -- include: run_columns
  FROM chosen JOIN runs r ON r.id = chosen.id JOIN tasks t ON t.id = r.task_id
) AS page ON true
ORDER BY page.position

-- fragment: choose_runs
-- of `newest(id, queue, state)`: those that the filters leave
walked AS MATERIALIZED (
  SELECT newest.*, row_number() OVER () AS position FROM newest
), chosen AS MATERIALIZED (
  SELECT id, position FROM walked
  WHERE ($5::text IS NULL OR queue = $5) AND ($6::text IS NULL OR state = $6)
  ORDER BY position LIMIT $3
),

-- name: get_run
-- reads one run
SELECT
-- include: run_columns
FROM runs r JOIN tasks t ON t.id = r.task_id
WHERE r.id = $1 AND r.namespace = $2

-- name: list_runs
-- reads runs, newest first, from below `$2`: at most `$3` of the `$4` looked at
WITH newest AS MATERIALIZED (
  SELECT r.id, r.queue, r.state FROM runs r WHERE r.namespace = $1 AND r.id < $2 ORDER BY r.id DESC LIMIT $4
),
-- include: choose_runs
-- include: run_page

-- name: list_runs_of_task
-- reads the runs of the task `$7`, newest first, from below `$2`
WITH newest AS MATERIALIZED (
  SELECT r.id, r.queue, r.state FROM runs r
  WHERE r.task_id = $7 AND r.namespace = $1 AND r.id < $2
  ORDER BY r.id DESC LIMIT $4
),
-- include: choose_runs
-- include: run_page

-- name: list_runs_ended
-- reads runs that ended in the state `$6` (said twice: see list_tasks_by_name), newest first, from below `$2`
WITH newest AS MATERIALIZED (
  SELECT r.id, r.queue, r.state FROM runs r
  WHERE r.namespace = $1 AND r.state = $6 AND r.state BETWEEN $6 AND $6
    AND r.state IN ('completed', 'failed', 'cancelled', 'skipped', 'dead_letter') AND r.id < $2
  ORDER BY r.id DESC LIMIT $4
),
-- include: choose_runs
-- include: run_page

-- name: list_runs_active
-- reads queued or running runs (a window's worth at most), newest first, from below `$2`
WITH newest AS MATERIALIZED (
  SELECT * FROM (
    SELECT r.id, r.queue, r.state FROM runs r
    WHERE $6 = 'queued' AND r.state = 'queued' AND r.namespace = $1 AND r.id < $2
    UNION ALL
    SELECT r.id, r.queue, r.state FROM runs r
    WHERE $6 = 'running' AND r.state = 'running' AND r.namespace = $1 AND r.id < $2
  ) AS active
  ORDER BY id DESC LIMIT $4
),
-- include: choose_runs
-- include: run_page

-- name: list_attempts
-- reads the attempts of a run, those that ended and the one that executes
SELECT a.run_id, a.attempt, a.fence, a.worker_id, a.outcome, a.reason, a.exit_code, a.started_at, a.finished_at, a.task_version
FROM attempts a WHERE a.run_id = $1
UNION ALL
SELECT r.id, r.attempt, r.fence, r.worker_id, NULL, NULL, NULL, r.started_at, NULL, r.task_version
FROM runs r WHERE r.id = $1 AND r.state = 'running'
ORDER BY attempt

-- name: cancel_runs
-- pending | queued → cancelled; of an executing one, the end is requested. `$5`: only of those that still are in this state
WITH lanes_open AS (
  SELECT $3::text[] AS lanes
), touched AS (
  UPDATE runs r
  SET state            = CASE WHEN r.state = 'running' THEN 'running' ELSE 'cancelled' END,
      reason           = CASE WHEN r.state = 'running' THEN r.reason ELSE $4 END,
      finished_at      = CASE WHEN r.state = 'running' THEN NULL ELSE dts_now() END,
      dispatch_seq     = CASE WHEN r.state = 'running' THEN r.dispatch_seq ELSE r.dispatch_seq + 1 END,
      cancel_requested = true,
      version          = r.version + 1
  WHERE r.id = ANY($1::uuid[]) AND r.namespace = $2 AND r.state IN ('pending', 'queued', 'running')
    AND ($5::text IS NULL OR r.state = $5)
  RETURNING r.id AS run_id, r.state, r.worker_id
), ended AS (
  SELECT run_id, state FROM touched WHERE state = 'cancelled'
),
-- include: settle_dependents
SELECT CASE state WHEN 'running' THEN 'requested' ELSE 'cancelled' END AS kind, run_id, state, worker_id,
       NULL AS lane, NULL::smallint AS priority, NULL::timestamptz AS run_at, NULL::integer AS seq, NULL AS traceparent
FROM touched
UNION ALL
SELECT kind, run_id, state, NULL, lane, priority, run_at, seq, traceparent FROM settled

-- name: revivable
-- reads runs and the definitions that they would run under, and keeps these from being edited or deleted until the
-- transaction ends: whoever does so has locked the task FOR UPDATE (lock_task), and so locks tasks before runs. A leader
-- that decides about a task's fires neither waits for this nor holds it up
SELECT r.id, r.task_id, r.state, t.spec, t.deleted_at
FROM runs r JOIN tasks t ON t.id = r.task_id
WHERE r.id = ANY($1::uuid[]) AND r.namespace = $2
ORDER BY t.id
FOR KEY SHARE OF t

-- name: revive
-- failed | cancelled | skipped | dead_letter → pending, with fresh budgets; its dead letter is replayed, and a workflow run
-- is open again: should it be ended, its tasks are too. `$9`: only of those that still are in this state
WITH revived AS (
  UPDATE runs r
  SET state = 'pending', reason = NULL, run_at = dts_now(), finished_at = NULL, queued_at = NULL,
      started_at = CASE WHEN n.gate IS NULL THEN NULL ELSE r.started_at END,  -- it counts in its rate
      first_started_at = NULL, start_before = dts_now() + make_interval(secs => n.start_within), exit_code = NULL,
      failures = 0, losses = 0, suspect = false, cancel_requested = false, held = false, unmet = 0,
      queue = n.queue, lane = n.lane, priority = n.priority, max_attempts = n.max_attempts, gate = n.gate,
      dispatch_seq = r.dispatch_seq + 1, version = r.version + 1
  FROM unnest($1::uuid[], $2::text[], $3::text[], $4::smallint[], $5::integer[], $6::float8[], $8::text[])
       AS n(run_id, queue, lane, priority, max_attempts, start_within, gate)
  WHERE r.id = n.run_id AND r.state IN ('failed', 'cancelled', 'skipped', 'dead_letter')
    AND ($9::text IS NULL OR r.state = $9)
  RETURNING r.id
), replayed AS (
  UPDATE dead_letter_tasks d SET state = 'replayed', decided_at = dts_now(), decided_by = $7
  FROM revived WHERE d.run_id = revived.id AND d.state = 'open' AND NOT d.waits
), replayed_again AS (
  -- Whatever its state: it may become open while this waits for its run.
  UPDATE dead_letter_tasks d SET state = 'replayed', waits = false, decided_at = dts_now(), decided_by = $7
  FROM revived WHERE d.run_id = revived.id AND d.state IN ('open', 'replayed') AND d.waits
), released AS (
  -- Conditions that it did not wait for to the end must not be counted down any more.
  UPDATE run_dependencies d SET state = 'impossible' FROM revived WHERE d.run_id = revived.id AND d.state = 'waiting'
), reopened AS (
  UPDATE workflow_runs w SET ended = false FROM revived WHERE w.run_id = revived.id AND w.ended
)
SELECT id FROM revived

-- name: run_fence
-- reads the fence of the attempt that executes, NULL if none does
SELECT state, CASE WHEN state = 'running' THEN fence END AS fence FROM runs WHERE id = $1 AND namespace = $2

-- name: read_checkpoint
-- reads a run's checkpoint
SELECT c.data, c.fence, c.stored_at FROM checkpoints c WHERE c.run_id = $1

-- name: put_checkpoint
-- checkpoint (any) → checkpoint: stored while the fence is still the run's, or while no attempt executes (`$3` NULL)
INSERT INTO checkpoints AS c (run_id, data, fence, stored_at)
SELECT r.id, $2, coalesce($3, r.fence, 0), dts_now()
FROM runs r
WHERE r.id = $1 AND CASE WHEN $3::bigint IS NULL THEN r.state <> 'running' ELSE r.state = 'running' AND r.fence = $3 END
FOR SHARE OF r
ON CONFLICT (run_id) DO UPDATE SET data = excluded.data, fence = excluded.fence, stored_at = excluded.stored_at
RETURNING c.stored_at

-- name: read_output
-- reads output from the byte `$3` of an attempt on, whole chunks, up to `$4` of them
SELECT position, stream, data FROM output_chunks
WHERE run_id = $1 AND attempt = $2
  AND position >= coalesce((SELECT max(position) FROM output_chunks WHERE run_id = $1 AND attempt = $2 AND position <= $3), 0)
ORDER BY position LIMIT $4

-- name: live_runs_by_filter
-- reads up to `$4` live runs, by queue and state
WITH lane AS MATERIALIZED (
  SELECT l.lane FROM lanes l WHERE l.namespace = $1 AND ($2::text IS NULL OR l.queue = $2)
)
SELECT id FROM (
  SELECT r.id FROM lane CROSS JOIN LATERAL (
    SELECT r.id FROM runs r WHERE r.lane = lane.lane AND r.state = 'queued' AND $3::text IS DISTINCT FROM 'pending'
      AND $3::text IS DISTINCT FROM 'running' LIMIT $4
  ) AS r
  UNION ALL
  SELECT r.id FROM runs r
  WHERE r.state = 'running' AND r.namespace = $1 AND ($2::text IS NULL OR r.queue = $2)
    AND $3::text IS DISTINCT FROM 'pending' AND $3::text IS DISTINCT FROM 'queued'
  UNION ALL
  SELECT r.id FROM lane CROSS JOIN LATERAL (
    SELECT r.id FROM runs r WHERE r.lane = lane.lane AND r.state = 'pending' AND r.unmet = 0 AND NOT r.held
      AND r.gate IS NULL AND $3::text IS DISTINCT FROM 'queued' AND $3::text IS DISTINCT FROM 'running' LIMIT $4
  ) AS r
  UNION ALL
  SELECT r.id FROM lane CROSS JOIN LATERAL (
    SELECT r.id FROM runs r WHERE r.lane = lane.lane AND r.state = 'pending' AND r.unmet = 0 AND NOT r.held
      AND r.gate IS NOT NULL AND $3::text IS DISTINCT FROM 'queued' AND $3::text IS DISTINCT FROM 'running' LIMIT $4
  ) AS r
  UNION ALL
  SELECT r.id FROM runs r
  WHERE r.state = 'pending' AND (r.unmet > 0 OR r.held) AND r.namespace = $1 AND ($2::text IS NULL OR r.queue = $2)
    AND $3::text IS DISTINCT FROM 'queued' AND $3::text IS DISTINCT FROM 'running'
) AS live
LIMIT $4

-- name: live_runs_of_task_by_filter
-- reads up to `$5` live runs of one task, by queue and state
SELECT r.id FROM runs r
WHERE r.task_id = $4 AND r.namespace = $1 AND r.state IN ('pending', 'queued', 'running')
  AND ($2::text IS NULL OR r.queue = $2) AND ($3::text IS NULL OR r.state = $3)
LIMIT $5

-- name: lock_run
-- keeps one run from changing until the transaction ends
SELECT version FROM runs WHERE id = $1 AND namespace = $2 FOR UPDATE
