-- name: claim
-- queued → running, for offers whose dispatch_seq still stands; → pending where the queue was paused meanwhile
WITH offer AS (
  SELECT o.*, 'queued' AS state FROM unnest($2::uuid[], $3::integer[]) AS o(run_id, seq)
),
-- include: take_offers

-- name: claim_waiting
-- queued → running without Redis: the most urgent runs that nobody has claimed for `$4` seconds
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
-- include: take_offers

-- fragment: format_known
-- a condition on `task`: this release understands what is stored (`scheduler.domain.task.FORMAT`)
AND coalesce((task.spec ->> 'format')::integer, 1) <= 1

-- fragment: take_offers
-- queued → running | pending, for the rows of `offer(run_id, seq, state)` and the live worker `$1`. The state is compared
-- with a column and not with a constant, so that no partial index looks cheaper than the primary key on an empty partition.
incarnation AS MATERIALIZED (
  SELECT id FROM workers WHERE id = $1 AND state = 'live' FOR SHARE
), clock AS MATERIALIZED (
  SELECT dts_now() AS at
), paused AS MATERIALIZED (
  SELECT namespace, name FROM queues WHERE paused
), refused AS (
  UPDATE runs r
  SET state = 'pending', queued_at = NULL, version = r.version + 1
  FROM offer, paused
  WHERE r.id = offer.run_id AND r.state = offer.state AND r.dispatch_seq = offer.seq
    AND r.namespace = paused.namespace AND r.queue = paused.name
), won AS (
  UPDATE runs r
  SET state = 'running', attempt = r.attempt + 1, fence = nextval('fence_seq'), worker_id = incarnation.id,
      started_at = clock.at, first_started_at = coalesce(r.first_started_at, clock.at),
      task_version = task.version, version = r.version + 1,
      kept_for = CASE WHEN jsonb_typeof(task.spec -> 'retention') = 'number' THEN (task.spec ->> 'retention')::float8 END
  FROM offer, incarnation, clock, tasks AS task
  WHERE r.id = offer.run_id AND r.state = offer.state AND r.dispatch_seq = offer.seq AND task.id = r.task_id
    AND NOT EXISTS (SELECT FROM paused WHERE paused.namespace = r.namespace AND paused.name = r.queue)
    -- include: format_known
  RETURNING r.id, r.task_id, r.namespace, r.fence, r.attempt, r.failures, r.losses, r.suspect, r.scheduled_for,
            r.started_at, r.first_started_at, r.task_version, r.traceparent, task.spec
)
SELECT won.*, EXISTS (SELECT FROM checkpoints WHERE checkpoints.run_id = won.id) AS has_checkpoint FROM won

-- name: finish
-- running → completed | failed | cancelled | dead_letter | pending, for the fence that is still the run's;
-- the attempt is recorded, dependents are counted down, a dead letter is written, all in this one statement
WITH clock AS MATERIALIZED (
  SELECT dts_now() AS at
), lanes_open AS MATERIALIZED (
  SELECT * FROM unnest($13::text[]) AS l(lane)
), report AS MATERIALIZED (
  SELECT f.*, 'running' AS was
  FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::integer[], $7::float8[],
              $8::timestamptz[], $9::timestamptz[], $10::jsonb[], $11::text[], $12::uuid[])
       AS f(run_id, fence, state, attempt_outcome, reason, exit_code, retry_in,
            started_at, finished_at, outputs, output_tail, dead_letter_id)
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
  RETURNING r.id AS run_id, r.task_id, r.namespace, r.queue, r.state, r.reason, r.attempt, r.fence, r.task_version,
            r.failures, r.losses, r.exit_code, r.output_tail, r.gate,
            f.attempt_outcome, f.reason AS attempt_reason, f.started_at, f.finished_at, f.dead_letter_id
), recorded AS (
  INSERT INTO attempts (run_id, attempt, fence, worker_id, outcome, reason, exit_code, started_at, finished_at, task_version)
  SELECT run_id, attempt, fence, $14, attempt_outcome, attempt_reason, exit_code, started_at, finished_at, task_version
  FROM moved
), buried AS (
  INSERT INTO dead_letter_tasks (id, run_id, task_id, namespace, task_name, queue, reason, attempt, failures, losses,
                                 exit_code, output_tail, created_at)
  SELECT m.dead_letter_id, m.run_id, m.task_id, m.namespace, t.name, m.queue, m.reason, m.attempt, m.failures, m.losses,
         m.exit_code, m.output_tail, clock.at
  FROM moved m JOIN tasks t ON t.id = m.task_id, clock
  WHERE m.state = 'dead_letter'
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
WITH lanes_open AS MATERIALIZED (
  SELECT * FROM unnest($2::text[]) AS l(lane)
), ended AS (
  SELECT r.id AS run_id, r.state FROM runs r
  WHERE r.id = ANY($1::uuid[]) AND r.state IN ('completed', 'failed', 'cancelled', 'skipped', 'dead_letter')
),
-- include: settle_dependents
SELECT kind, run_id, state, lane, priority, run_at, seq, traceparent FROM settled

-- fragment: settle_dependents
-- Takes `ended(run_id, state)` and `lanes_open(lane)`, gives `settled`: dependents that became `queued` (in an open lane),
-- `ready` (nothing blocks them, the leader will queue them) or `skipped` (call `settle` for these in turn).
-- The function looks only once `ended` is complete, and then sees edges that were committed after this statement began.
settled AS MATERIALIZED (
  SELECT * FROM dts_settle_dependents(
    (SELECT array_agg(run_id) FROM ended), (SELECT array_agg(state) FROM ended), ARRAY(SELECT lane FROM lanes_open))
)
