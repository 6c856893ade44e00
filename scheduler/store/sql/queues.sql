-- name: list_queues
-- reads every queue that work was ever put in, and its live runs, counting no further than `$2` in each lane and state
SELECT q.name, coalesce(bool_or(q.paused), false) AS paused, max(q.updated_at) AS updated_at,
       coalesce(sum(counted.pending), 0)::bigint AS pending, coalesce(sum(counted.queued), 0)::bigint AS queued
FROM (
  SELECT l.queue AS name, l.lane, s.paused, s.updated_at
  FROM lanes l LEFT JOIN queues s ON s.namespace = l.namespace AND s.name = l.queue
  WHERE l.namespace = $1
  UNION ALL
  SELECT s.name, NULL, s.paused, s.updated_at FROM queues s
  WHERE s.namespace = $1 AND NOT EXISTS (SELECT FROM lanes l WHERE l.namespace = s.namespace AND l.queue = s.name)
) AS q
LEFT JOIN LATERAL (
  SELECT (SELECT count(*) FROM (
            SELECT FROM runs r
            WHERE r.state = 'pending' AND r.unmet = 0 AND NOT r.held AND r.gate IS NULL AND r.lane = q.lane LIMIT $2
          ) AS waiting)
         + (SELECT count(*) FROM (
            SELECT FROM runs r
            WHERE r.state = 'pending' AND r.unmet = 0 AND NOT r.held AND r.gate IS NOT NULL AND r.lane = q.lane LIMIT $2
          ) AS gated) AS pending,
         (SELECT count(*) FROM (
            SELECT FROM runs r WHERE r.state = 'queued' AND r.lane = q.lane LIMIT $2
          ) AS offered) AS queued
) AS counted ON true
GROUP BY q.name
ORDER BY q.name

-- name: pause_queue
-- any → paused
INSERT INTO queues (namespace, name, paused, updated_at, updated_by) VALUES ($1, $2, true, dts_now(), $3)
ON CONFLICT (namespace, name) DO UPDATE
SET paused = true, updated_at = excluded.updated_at, updated_by = excluded.updated_by
RETURNING updated_at

-- name: resume_queue
-- any → not paused
INSERT INTO queues (namespace, name, paused, updated_at, updated_by) VALUES ($1, $2, false, dts_now(), $3)
ON CONFLICT (namespace, name) DO UPDATE
SET paused = false, updated_at = excluded.updated_at, updated_by = excluded.updated_by
RETURNING updated_at

-- name: lanes_of_queue
-- reads the lanes of one queue
SELECT lane FROM lanes WHERE namespace = $1 AND queue = $2

-- name: list_workers
-- reads the workers that are there, and those that went in the last hour; how much of each runs, in all (`$1` NULL) or of
-- the namespaces `$1`
SELECT w.id, w.name, w.host, w.pid, w.queues, w.executors, w.labels, w.containment, w.slots, w.version, w.state,
       w.drain_requested, w.registered_at, w.ended_at, w.end_reason,
       CASE WHEN $1::text[] IS NULL THEN coalesce(l.running, 0) ELSE (
         SELECT count(*)::integer FROM runs r
         WHERE r.worker_id = w.id AND r.state = 'running' AND r.namespace = ANY($1)
       ) END AS running,
       coalesce(l.renewed_at, w.registered_at) AS last_seen
FROM workers w LEFT JOIN worker_leases l ON l.worker_id = w.id
WHERE w.state IN ('live', 'draining')
UNION ALL
SELECT w.id, w.name, w.host, w.pid, w.queues, w.executors, w.labels, w.containment, w.slots, w.version, w.state,
       w.drain_requested, w.registered_at, w.ended_at, w.end_reason, 0, w.ended_at
FROM workers w
WHERE w.state IN ('dead', 'left') AND w.ended_at > dts_now() - interval '1 hour'
ORDER BY registered_at, id

-- name: request_drain
-- live → draining, once the worker hears of it with its next renewal
UPDATE workers SET drain_requested = true WHERE id = $1 RETURNING state

-- name: leader
-- reads who leads, and for how long nothing has been heard of it
SELECT epoch, holder, host, pid, acquired_at, renewed_at, extract(epoch FROM dts_now() - renewed_at)::float8 AS silent
FROM leadership

-- name: leader_report
-- reads what whoever leads has said of itself in this term, and how long ago
SELECT report, extract(epoch FROM dts_now() - reported_at)::float8 AS age
FROM leadership WHERE (report ->> 'epoch')::bigint = epoch

-- name: count_live_workers
-- reads how many workers take work
SELECT count(*) FROM workers WHERE state = 'live'

-- name: waiting_at_most
-- reads how many runs could stand in the indexes of those that wait, as large as these are: never less than there are.
-- The second number is what an entry takes at least: 4 bytes to find it on its page, 8 for its header, and its columns,
-- aligned, with a lane of a single byte
SELECT coalesce(sum(pg_relation_size(part.relid) / waiting.bytes), 0)::bigint
FROM (VALUES ('runs_pending', 44), ('runs_gated', 44), ('runs_queued', 44), ('runs_blocked', 28)) AS waiting(index, bytes)
CROSS JOIN LATERAL pg_partition_tree(to_regclass(waiting.index)) AS part
WHERE part.isleaf

-- name: count_waiting
-- reads how many runs wait, counting no further than `$1`
SELECT (SELECT count(*) FROM (SELECT FROM runs WHERE state = 'pending' AND unmet = 0 AND NOT held AND gate IS NULL LIMIT $1) AS a)
     + (SELECT count(*) FROM (SELECT FROM runs WHERE state = 'pending' AND unmet = 0 AND NOT held AND gate IS NOT NULL LIMIT $1) AS g)
     + (SELECT count(*) FROM (SELECT FROM runs WHERE state = 'pending' AND (unmet > 0 OR held) LIMIT $1) AS b)
     + (SELECT count(*) FROM (SELECT FROM runs WHERE state = 'queued' LIMIT $1) AS c)
