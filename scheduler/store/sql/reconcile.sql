-- name: identity
-- reads what tells this database from any other, and from itself before a failover or a restore
SELECT concat_ws('/', s.system_identifier, c.timeline_id, i.restore_marker)
FROM pg_control_system() AS s, pg_control_checkpoint() AS c, installation AS i

-- name: stale_queued
-- reads a page of what has stood queued in one lane and priority for `$5` seconds, after (run_at, id)
SELECT r.id AS run_id, r.lane, r.priority, r.run_at, r.dispatch_seq AS seq, r.traceparent
FROM runs r
WHERE r.state = 'queued' AND r.lane = $1 AND r.priority = $2 AND (r.run_at, r.id) > ($3::timestamptz, $4::uuid)
  AND r.queued_at <= dts_now() - make_interval(secs => $5)
ORDER BY r.run_at, r.id
LIMIT $6

-- name: withdraw_paused
-- queued → pending: runs that were queued before their queue was paused
WITH paused AS MATERIALIZED (
  SELECT l.lane FROM queues q JOIN lanes l ON l.namespace = q.namespace AND l.queue = q.name WHERE q.paused
), found AS MATERIALIZED (
  SELECT candidate.id
  FROM paused
  CROSS JOIN LATERAL (
    SELECT r.id FROM runs r WHERE r.state = 'queued' AND r.lane = paused.lane
    ORDER BY r.priority DESC, r.run_at, r.id
    LIMIT $1
    FOR UPDATE OF r SKIP LOCKED
  ) AS candidate
)
UPDATE runs r
SET state = 'pending', queued_at = NULL, dispatch_seq = r.dispatch_seq + 1, version = r.version + 1
FROM found
WHERE r.id = found.id AND r.state = 'queued'
RETURNING r.id

-- name: waiting_upstreams
-- reads a page of the upstream runs that edges wait for, after an id, and whether each has ended without telling them
SELECT w.id, coalesce(r.state IN ('completed', 'failed', 'cancelled', 'skipped', 'dead_letter'), false) AS ended
FROM (
  SELECT d.upstream_run_id AS id FROM run_dependencies d
  WHERE d.state = 'waiting' AND d.upstream_run_id > $1
  ORDER BY d.upstream_run_id
  LIMIT $2
) AS w
LEFT JOIN runs r ON r.id = w.id
ORDER BY w.id

-- name: blocked_runs
-- reads a page of blocked runs, after an id, and whether each one's count disagrees with its edges. A condition that cannot
-- hold counts as unmet until its run has ended; on a run that counts none, it is left from before the run was revived
SELECT b.id, b.version, b.unmet <> b.waiting OR (b.hopeless AND b.unmet > 0) AS wrong
FROM (
  SELECT r.id, r.version, r.unmet,
         (SELECT count(*) FROM run_dependencies d WHERE d.run_id = r.id AND d.state = 'waiting') AS waiting,
         EXISTS (SELECT FROM run_dependencies d WHERE d.run_id = r.id AND d.state = 'impossible') AS hopeless
  FROM runs r
  WHERE r.state = 'pending' AND (r.unmet > 0 OR r.held) AND r.id > $1
  ORDER BY r.id
  LIMIT $2
) AS b
ORDER BY b.id

-- name: recount
-- pending → pending | skipped: blocked runs whose count disagreed with their edges, unless they have changed since; those
-- that wait for what cannot hold (see blocked_runs) end
WITH lanes_open AS (
  SELECT '{}'::text[] AS lanes
), wrong AS MATERIALIZED (
  SELECT w.id, w.version, count(*) FILTER (WHERE d.state = 'waiting')::integer AS waiting,
         coalesce(bool_or(d.state = 'impossible'), false) AS hopeless
  FROM unnest($1::uuid[], $2::integer[]) AS w(id, version)
  LEFT JOIN run_dependencies d ON d.run_id = w.id
  GROUP BY w.id, w.version
), mended AS (
  UPDATE runs r
  SET unmet       = w.waiting,
      state       = CASE WHEN w.hopeless AND r.unmet > 0 THEN 'skipped' ELSE 'pending' END,
      reason      = CASE WHEN w.hopeless AND r.unmet > 0 THEN 'dependency_failed' ELSE r.reason END,
      finished_at = CASE WHEN w.hopeless AND r.unmet > 0 THEN dts_now() END,
      version     = r.version + 1
  FROM wrong w
  WHERE r.id = w.id AND r.version = w.version AND CASE r.state WHEN 'pending' THEN true ELSE false END
  RETURNING r.id AS run_id, r.state, r.lane, r.priority, r.run_at, r.dispatch_seq AS seq, r.traceparent, r.unmet
), ended AS (
  SELECT run_id, state FROM mended WHERE state = 'skipped'
),
-- include: settle_dependents
SELECT kind, run_id, state, lane, priority, run_at, seq, traceparent FROM settled
UNION ALL
SELECT 'ready', run_id, state, lane, priority, run_at, seq, traceparent FROM mended WHERE state = 'pending' AND unmet = 0

-- name: give_up_late
-- pending | queued → failed: runs that should have started by now
WITH lanes_open AS (
  SELECT '{}'::text[] AS lanes
), late AS MATERIALIZED (
  SELECT r.id FROM runs r
  WHERE r.start_before <= (SELECT dts_now()) AND r.state IN ('pending', 'queued') AND r.first_started_at IS NULL
  ORDER BY r.start_before
  LIMIT $1
  FOR UPDATE SKIP LOCKED
), ended AS (
  UPDATE runs r
  SET state = 'failed', reason = 'schedule_timeout', finished_at = dts_now(), version = r.version + 1
  FROM late
  WHERE r.id = late.id AND r.state IN ('pending', 'queued')
  RETURNING r.id AS run_id, r.state
),
-- include: settle_dependents
SELECT kind, run_id, state, lane, priority, run_at, seq, traceparent FROM settled
UNION ALL
SELECT 'ended', run_id, state, NULL, NULL, NULL, NULL, NULL FROM ended

-- name: forget_workers
-- dead | left → (nothing): after `$1` seconds, unless a run still has to be taken from it
DELETE FROM workers w
WHERE w.state IN ('dead', 'left') AND w.ended_at <= dts_now() - make_interval(secs => $1)
  AND NOT EXISTS (SELECT FROM runs r WHERE r.worker_id = w.id AND r.state = 'running')
RETURNING 1

-- name: lanes_built_for
-- reads which servers the lanes in Redis were last rebuilt for
SELECT lanes_built_for FROM installation

-- name: note_lanes_built
-- (anything) → built
UPDATE installation SET lanes_built_for = $1

-- name: lane_backlog
-- reads, for each lane, how many runs stand queued or wait past their time behind no gate (none counted
-- beyond `$1`), and since when
SELECT l.lane, l.namespace, l.queue, queued.n::integer AS queued, due.n::integer AS due,
       greatest(0, extract(epoch FROM dts_now() - due.oldest))::float8 AS oldest_age
FROM lanes l
CROSS JOIN LATERAL (
  SELECT count(*) AS n FROM (SELECT FROM runs r WHERE r.state = 'queued' AND r.lane = l.lane LIMIT $1) AS q
) AS queued
CROSS JOIN LATERAL (
  SELECT count(*) AS n, min(d.run_at) AS oldest
  FROM generate_series(0, 9) AS p(priority)
  CROSS JOIN LATERAL (
    SELECT r.run_at FROM runs r
    WHERE r.state = 'pending' AND r.unmet = 0 AND NOT r.held AND r.gate IS NULL AND r.lane = l.lane AND r.priority = p.priority
      AND r.run_at <= (SELECT dts_now())
    ORDER BY r.run_at
    LIMIT $1
  ) AS d
) AS due
