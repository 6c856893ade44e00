-- name: register_worker
-- (nothing) → live: a new incarnation of a worker, with its lease; nothing if it is there already, the answer was lost
WITH clock AS MATERIALIZED (
  SELECT dts_now() AS at
), worker AS (
  INSERT INTO workers (id, name, host, pid, queues, executors, labels, containment, slots, version, lease, state, registered_at)
  SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 'live', clock.at FROM clock
  ON CONFLICT (id) DO NOTHING
  RETURNING id
)
INSERT INTO worker_leases (worker_id, renewed_at) SELECT worker.id, clock.at FROM worker, clock

-- name: renew_lease
-- held → held: renews the lease of a live or draining worker, and reads how what it holds (fences `$3`) differs from what is
-- its own
WITH renewed AS (
  UPDATE worker_leases l
  SET renewal = l.renewal + 1, running = $2, renewed_at = dts_now()
  FROM workers w
  WHERE l.worker_id = $1 AND w.id = l.worker_id AND w.state IN ('live', 'draining')
  RETURNING w.drain_requested
), own AS MATERIALIZED (
  SELECT r.id AS run_id, r.fence, r.cancel_requested, r.started_at
  FROM renewed, runs r
  WHERE r.worker_id = $1 AND r.state = 'running'
)
SELECT 'renewed' AS kind, NULL::uuid AS run_id, NULL::bigint AS fence, NULL::timestamptz AS started_at, drain_requested
FROM renewed
UNION ALL
SELECT 'cancel', run_id, fence, NULL, NULL FROM own WHERE cancel_requested
UNION ALL
SELECT 'lacking', run_id, fence, started_at, NULL FROM own WHERE fence <> ALL ($3::bigint[])
UNION ALL
SELECT 'lost', NULL, held.fence, NULL, NULL
FROM renewed, unnest($3::bigint[]) AS held(fence)
WHERE held.fence NOT IN (SELECT own.fence FROM own)

-- name: drain_worker
-- live → draining: it claims no more
UPDATE workers SET state = 'draining' WHERE id = $1 AND state = 'live'

-- name: leave_worker
-- live | draining → left: a worker that has nothing left to do; runs that it still holds are reaped
WITH lease AS (
  DELETE FROM worker_leases WHERE worker_id = $1
)
UPDATE workers SET state = 'left', ended_at = dts_now(), end_reason = $2 WHERE id = $1 AND state IN ('live', 'draining')
