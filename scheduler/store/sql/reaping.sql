-- name: lease_numbers
-- reads the lease number of every live worker, and how long its lease lasts
SELECT w.id, coalesce(l.renewal, -1) AS renewal, w.lease AS lasts
FROM workers w LEFT JOIN worker_leases l ON l.worker_id = w.id
WHERE w.state IN ('live', 'draining')

-- name: end_lease
-- held → ended: with its row gone, a renewal that waited for us finds nothing. `$2`: only if the number still is this
DELETE FROM worker_leases WHERE worker_id = $1 AND ($2::bigint IS NULL OR renewal = $2) RETURNING worker_id

-- name: bury_worker
-- live | draining → dead. Claims hold the row FOR SHARE, so those under way commit first and are seen afterwards
UPDATE workers SET state = 'dead', ended_at = dts_now(), end_reason = $2
WHERE id = $1 AND state IN ('live', 'draining')
RETURNING id

-- name: lost_runs
-- reads and locks, in the order of ids, what an ended worker was executing
SELECT r.id AS run_id, r.losses, r.suspect, r.cancel_requested, coalesce(t.spec ->> 'on_lost', 'retry') AS on_lost,
       t.spec #> '{retry,rules}' AS rules
FROM runs r
JOIN workers w ON w.id = r.worker_id AND w.state IN ('dead', 'left')
JOIN tasks t ON t.id = r.task_id
WHERE r.worker_id = $1 AND r.state = 'running'
ORDER BY r.id
FOR UPDATE OF r

-- name: write_losses
-- running → pending | failed | cancelled | dead_letter: runs of a worker that is dead, which the caller has locked
WITH clock AS MATERIALIZED (
  SELECT dts_now() AS at
), lanes_open AS (
  SELECT '{}'::text[] AS lanes
), verdict AS MATERIALIZED (
  SELECT * FROM unnest($2::uuid[], $3::text[], $4::text[], $5::integer[], $6::boolean[], $7::float8[], $8::uuid[])
                AS v(run_id, state, reason, losses, suspect, retry_in, dead_letter_id)
), attempted AS (
  INSERT INTO attempts (run_id, attempt, fence, worker_id, outcome, reason, started_at, finished_at, task_version)
  SELECT r.id, r.attempt, r.fence, r.worker_id, 'lost', 'lost', r.started_at, clock.at, r.task_version
  FROM verdict v JOIN runs r ON r.id = v.run_id, clock
  WHERE r.state = 'running' AND r.worker_id = $1
), moved AS (
  UPDATE runs r
  SET state = v.state, reason = v.reason, losses = v.losses, suspect = v.suspect, worker_id = NULL, exit_code = NULL,
      run_at      = CASE v.state WHEN 'pending' THEN clock.at + make_interval(secs => v.retry_in) ELSE r.run_at END,
      queued_at   = CASE v.state WHEN 'pending' THEN NULL ELSE r.queued_at END,
      finished_at = CASE v.state WHEN 'pending' THEN NULL ELSE clock.at END,
      version     = r.version + 1
  FROM verdict v, clock
  WHERE r.id = v.run_id AND r.state = 'running' AND r.worker_id = $1
  RETURNING r.id AS run_id, r.task_id, r.namespace, r.queue, r.state, r.reason, r.attempt, r.failures, r.losses,
            r.exit_code, r.output_tail
), buried AS (
  INSERT INTO dead_letter_tasks (id, run_id, task_id, namespace, task_name, queue, reason, attempt, failures, losses,
                                 exit_code, output_tail, created_at)
  SELECT v.dead_letter_id, m.run_id, m.task_id, m.namespace, t.name, m.queue, m.reason, m.attempt, m.failures, m.losses,
         m.exit_code, m.output_tail, clock.at
  FROM moved m JOIN verdict v ON v.run_id = m.run_id JOIN tasks t ON t.id = m.task_id, clock
  WHERE m.state = 'dead_letter'
), ended AS (
  SELECT run_id, state FROM moved WHERE state <> 'pending'
),
-- include: settle_dependents
SELECT kind, run_id, state, lane, priority, run_at, seq, traceparent FROM settled

-- name: orphan_workers
-- reads ended workers that still have executing runs: what a claim committed while its worker was being reaped
SELECT DISTINCT r.worker_id
FROM runs r
JOIN workers w ON w.id = r.worker_id
WHERE r.state = 'running' AND w.state IN ('dead', 'left')
