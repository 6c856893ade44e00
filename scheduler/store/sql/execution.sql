-- name: claim
-- queued → running, for offers whose dispatch_seq still stands and whose queue is not paused; `$4` and `$5` are the lowest
-- and the highest run offered. They keep the weeks before and after out of it. Said with an OR, they are of no use to an
-- index, and said of the offers too, they make these look like one: on small tables the planner would else read all that
-- lies between them, once for each.
WITH offer AS MATERIALIZED (
  SELECT o.*, 'queued' AS state FROM unnest($2::uuid[], $3::integer[]) AS o(run_id, seq)
  WHERE o.run_id BETWEEN $4 AND $5
),
-- include: claim_terms
UPDATE runs r
-- include: start_offered
  AND (r.id BETWEEN $4 AND $5 OR r.id = $4)
-- include: claimed

-- name: refuse_paused
-- queued → pending, for offers whose dispatch_seq still stands and whose queue was paused meanwhile
WITH offer AS (
  SELECT o.*, 'queued' AS state FROM unnest($1::uuid[], $2::integer[]) AS o(run_id, seq)
), paused AS MATERIALIZED (
  SELECT namespace, name FROM queues WHERE paused
)
UPDATE runs r
-- include: back_to_pending

-- name: claim_waiting
-- queued → running without Redis: the most urgent runs that nobody has claimed for `$4` seconds; → pending where the queue
-- was paused meanwhile
WITH offer AS MATERIALIZED (
  SELECT waiting.run_id, waiting.seq, 'queued' AS state
  FROM unnest($2::text[]) AS l(lane)
  CROSS JOIN LATERAL (
    SELECT r.id AS run_id, r.dispatch_seq AS seq, r.priority, r.run_at
    FROM runs r
    WHERE r.lane = l.lane AND r.state = 'queued'
      AND r.queued_at <= (SELECT dts_now()) - make_interval(secs => $4)
      AND EXISTS (
        SELECT FROM tasks AS task WHERE task.id = r.task_id
          -- include: format_known
      )
    ORDER BY r.priority DESC, r.run_at, r.id
    LIMIT $3
    FOR UPDATE OF r SKIP LOCKED
  ) AS waiting
  ORDER BY waiting.priority DESC, waiting.run_at, waiting.run_id
  LIMIT $3
),
-- include: claim_terms
, refused AS (
  UPDATE runs r
  -- include: back_to_pending
)
UPDATE runs r
-- include: start_offered
-- include: claimed

-- fragment: format_known
-- a condition on `task`: this release understands what is stored (`scheduler.domain.task.FORMAT`)
AND coalesce((task.spec ->> 'format')::integer, 1) <= 1

-- fragment: claim_terms
-- the live worker `$1`, the time, and what is paused
incarnation AS MATERIALIZED (
  SELECT id FROM workers WHERE id = $1 AND state = 'live' FOR SHARE
), clock AS MATERIALIZED (
  SELECT dts_now() AS at
), paused AS MATERIALIZED (
  SELECT namespace, name FROM queues WHERE paused
)

-- fragment: back_to_pending
-- the rest of an UPDATE of `runs r`: the rows of `offer(run_id, seq, state)` in queues of `paused(namespace, name)`
SET state = 'pending', queued_at = NULL, version = r.version + 1
FROM offer, paused
WHERE r.id = offer.run_id AND r.state = offer.state AND r.dispatch_seq = offer.seq
  AND r.namespace = paused.namespace AND r.queue = paused.name

-- fragment: start_offered
-- an UPDATE of `runs r` up to its conditions: the rows of `offer(run_id, seq, state)` begin. The state is compared with a
-- column and not with a constant, so that no partial index looks cheaper than the primary key on an empty partition.
SET state = 'running', attempt = r.attempt + 1, fence = nextval('fence_seq'), worker_id = incarnation.id,
    started_at = clock.at, first_started_at = coalesce(r.first_started_at, clock.at),
    task_version = task.version, version = r.version + 1,
    kept_for = CASE WHEN jsonb_typeof(task.spec -> 'retention') = 'number' THEN (task.spec ->> 'retention')::float8 END
FROM offer, incarnation, clock, tasks AS task
WHERE r.id = offer.run_id AND r.state = offer.state AND r.dispatch_seq = offer.seq AND task.id = r.task_id
  AND NOT EXISTS (SELECT FROM paused WHERE paused.namespace = r.namespace AND paused.name = r.queue)
  -- include: format_known

-- fragment: claimed
-- what a worker must know of the run `r` that it executes
RETURNING r.id, r.task_id, r.namespace, r.fence, r.attempt, r.failures, r.losses, r.suspect, r.scheduled_for,
          r.started_at, r.first_started_at, r.traceparent, task.spec,
          EXISTS (SELECT FROM checkpoints WHERE checkpoints.run_id = r.id) AS has_checkpoint

-- name: finish
-- running → completed | failed | cancelled | pending, for the fence that is still the run's; the attempt is recorded and
-- dependents are counted down, all in this one statement. `$15` and `$16` are the lowest and the highest run (as in `claim`)
WITH
-- include: move_reported
),
-- include: tell_moved

-- name: finish_and_bury
-- the same for reports with deaths: also running → dead_letter, and the dead letter is written
WITH
-- include: move_reported
            , f.dead_letter_id, r.task_id, r.namespace, r.queue, r.reason, r.failures, r.losses, r.output_tail
), buried AS (
  INSERT INTO dead_letter_tasks (id, run_id, task_id, namespace, task_name, queue, reason, attempt, failures, losses,
                                 exit_code, output_tail, created_at)
  SELECT m.dead_letter_id, m.run_id, m.task_id, m.namespace, t.name, m.queue, m.reason, m.attempt, m.failures, m.losses,
         m.exit_code, m.output_tail, clock.at
  FROM moved m JOIN tasks t ON t.id = m.task_id, clock
  WHERE m.state = 'dead_letter'
),
-- include: tell_moved

-- fragment: move_reported
-- running → completed | failed | cancelled | dead_letter | pending, for the reports `$1` to `$12`: `moved`, still open
clock AS MATERIALIZED (
  SELECT dts_now() AS at
), report AS MATERIALIZED (
  SELECT f.*, 'running' AS was
  FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::integer[], $7::float8[],
              $8::timestamptz[], $9::timestamptz[], $10::jsonb[], $11::text[], $12::uuid[])
       AS f(run_id, fence, state, attempt_outcome, reason, exit_code, retry_in,
            started_at, finished_at, outputs, output_tail, dead_letter_id)
  WHERE f.run_id BETWEEN $15 AND $16
), moved AS (
  UPDATE runs r
  SET state       = CASE WHEN r.cancel_requested AND f.state IN ('pending', 'failed', 'dead_letter') THEN 'cancelled' ELSE f.state END,
      reason      = CASE WHEN r.cancel_requested AND f.state IN ('pending', 'failed', 'dead_letter') THEN 'cancelled' ELSE f.reason END,
      exit_code   = f.exit_code,
      run_at      = CASE WHEN f.state = 'pending' THEN clock.at + make_interval(secs => f.retry_in) ELSE r.run_at END,
      finished_at = CASE WHEN f.state <> 'pending' OR r.cancel_requested THEN clock.at END,
      outputs     = coalesce(f.outputs, r.outputs),
      output_tail = coalesce(f.output_tail, r.output_tail),
      failures    = r.failures + (f.attempt_outcome = 'failed')::integer,
      losses      = r.losses + (f.attempt_outcome = 'lost')::integer,
      suspect     = r.suspect AND f.attempt_outcome = 'requeued',
      worker_id   = NULL,
      queued_at   = CASE WHEN f.state <> 'pending' THEN r.queued_at END,
      version     = r.version + 1
  FROM report f, clock
  WHERE r.id = f.run_id AND r.fence = f.fence AND r.state = f.was
    AND (r.id BETWEEN $15 AND $16 OR r.id = $15)
  RETURNING r.id AS run_id, r.state, r.attempt, r.fence, r.task_version, r.exit_code, r.gate,
            f.attempt_outcome, f.reason AS attempt_reason, f.started_at, f.finished_at

-- fragment: tell_moved
-- records the attempts of `moved`, settles their dependents, and tells what became of whom; `$13` are the open lanes, `$14` is
-- the worker
recorded AS (
  INSERT INTO attempts (run_id, attempt, fence, worker_id, outcome, reason, exit_code, started_at, finished_at, task_version)
  SELECT run_id, attempt, fence, $14, attempt_outcome, attempt_reason, exit_code, started_at, finished_at, task_version
  FROM moved
), lanes_open AS (
  SELECT $13::text[] AS lanes
), ended AS (
  SELECT run_id, state FROM moved WHERE state <> 'pending'
),
-- include: settle_dependents
SELECT 'applied' AS kind, run_id, state, NULL AS lane, NULL::smallint AS priority, NULL::timestamptz AS run_at,
       NULL::integer AS seq, NULL AS traceparent
FROM moved
UNION ALL
-- A place behind its gate is free: the leader should look.
SELECT 'ready', run_id, state, NULL, NULL, NULL, NULL, NULL FROM moved WHERE gate IS NOT NULL
UNION ALL
SELECT kind, run_id, state, lane, priority, run_at, seq, traceparent FROM settled

-- name: already_finished
-- reads which of these (run, fence, outcome) reports were applied before
SELECT a.run_id
FROM unnest($1::uuid[], $2::bigint[], $3::text[]) AS f(run_id, fence, outcome)
JOIN attempts a ON a.run_id = f.run_id AND a.fence = f.fence AND a.outcome = f.outcome

-- name: settle
-- pending → queued | skipped: dependents of runs that have ended
WITH lanes_open AS (
  SELECT $2::text[] AS lanes
), ended AS (
  SELECT r.id AS run_id, r.state FROM runs r
  WHERE r.id = ANY($1::uuid[]) AND r.state IN ('completed', 'failed', 'cancelled', 'skipped', 'dead_letter')
),
-- include: settle_dependents
SELECT kind, run_id, state, lane, priority, run_at, seq, traceparent FROM settled

-- fragment: settle_dependents
-- Takes `ended(run_id, state)` and `lanes_open(lanes)`, gives `settled`: dependents that became `queued` (in an open lane),
-- `ready` (nothing blocks them, the leader will queue them) or `skipped` (call `settle` for these in turn).
-- The function looks only once `ended` is complete, and then sees edges that were committed after this statement began.
settled AS MATERIALIZED (
  SELECT s.*
  FROM (SELECT array_agg(run_id) AS runs, array_agg(state) AS states FROM ended) AS e,
       LATERAL dts_settle_dependents(e.runs, e.states, (SELECT lanes FROM lanes_open)) AS s
)
