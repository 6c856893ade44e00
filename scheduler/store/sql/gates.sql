-- name: insert_gates
-- (nothing) → gate: remembered for the leader
INSERT INTO gates (gate, namespace, concurrency_key, max_runs, on_conflict, rate_key, rate_n, rate_per, fairness_key)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::integer[], $5::text[], $6::text[], $7::integer[], $8::float8[], $9::text[])
ON CONFLICT DO NOTHING

-- name: waiting_heads
-- reads the first run that waits of each (lane, gate, priority), after one of these, in one step from each to the next
WITH RECURSIVE head AS (
  (SELECT r.lane, r.gate, r.priority, r.run_at, r.id FROM runs r
   WHERE r.state = 'pending' AND r.unmet = 0 AND NOT r.held AND r.gate IS NOT NULL
     AND (r.lane, r.gate, r.priority) > ($1::text, $2::text, $3::smallint)
   ORDER BY r.lane, r.gate, r.priority, r.run_at, r.id LIMIT 1)
  UNION ALL
  SELECT following.*
  FROM head
  CROSS JOIN LATERAL (
    SELECT r.lane, r.gate, r.priority, r.run_at, r.id FROM runs r
    WHERE r.state = 'pending' AND r.unmet = 0 AND NOT r.held AND r.gate IS NOT NULL
      AND (r.lane, r.gate, r.priority) > (head.lane, head.gate, head.priority)
    ORDER BY r.lane, r.gate, r.priority, r.run_at, r.id LIMIT 1
  ) AS following
)
SELECT head.lane, head.priority, head.run_at, head.id, extract(epoch FROM head.run_at - dts_now())::float8 AS due_in,
       g.gate, g.namespace, g.concurrency_key, g.max_runs, g.on_conflict, g.rate_key, g.rate_n, g.rate_per, g.fairness_key
FROM (SELECT * FROM head LIMIT $4) AS head JOIN gates g ON g.gate = head.gate
ORDER BY head.lane, head.gate, head.priority

-- name: hold_gates
-- keeps every other admission out until the transaction ends: what is counted next can only become less
SELECT pg_advisory_xact_lock(hashtext('dts_gates'))

-- name: count_active
-- reads how many runs of each concurrency key are queued or running
SELECT k.namespace, k.key, (
  SELECT count(*) FROM gates g JOIN runs r ON r.gate = g.gate
  WHERE g.namespace = k.namespace AND g.concurrency_key = k.key AND r.gate IS NOT NULL AND r.state IN ('queued', 'running')
)::integer AS n
FROM unnest($1::text[], $2::text[]) AS k(namespace, key)

-- name: yielding_runs
-- reads the queued or running runs of each concurrency key, without those that were asked to end
SELECT k.namespace, k.key, ARRAY(
  SELECT r.id FROM gates g JOIN runs r ON r.gate = g.gate
  WHERE g.namespace = k.namespace AND g.concurrency_key = k.key AND r.gate IS NOT NULL AND r.state IN ('queued', 'running')
    AND NOT r.cancel_requested
) AS runs
FROM unnest($1::text[], $2::text[]) AS k(namespace, key)

-- name: count_served
-- reads how many runs of each fairness key are queued or running
SELECT k.namespace, k.key, (
  SELECT count(*) FROM gates g JOIN runs r ON r.gate = g.gate
  WHERE g.namespace = k.namespace AND g.fairness_key = k.key AND r.gate IS NOT NULL AND r.state IN ('queued', 'running')
)::integer AS n
FROM unnest($1::text[], $2::text[]) AS k(namespace, key)

-- name: count_admitted
-- reads how many runs with a fairness key stand queued in each lane and priority. Each gate is looked up once: only few
-- have runs that stand queued, but every one that there ever was is kept
WITH admitted AS MATERIALIZED (
  SELECT r.lane, r.priority, r.gate, count(*) AS n
  FROM runs r
  WHERE r.lane = ANY ($1::text[]) AND r.gate IS NOT NULL AND r.state = 'queued'
  GROUP BY r.lane, r.priority, r.gate
)
SELECT lane, priority, sum(n)::integer AS n
FROM admitted
WHERE (SELECT g.fairness_key FROM gates g WHERE g.gate = admitted.gate) IS NOT NULL
GROUP BY lane, priority

-- name: count_starts
-- reads how many places of each rate are taken: by what is queued to start, and by what started in its time (of a run that
-- started more than once, every time); and in how many seconds the next one is free
SELECT w.namespace, w.key, w.n, w.per, queued.n::integer AS queued, started.n::integer AS started,
       extract(epoch FROM started.at[greatest(1, w.n - queued.n)] + make_interval(secs => w.per) - clock.at)::float8 AS free_in
FROM (SELECT dts_now() AS at) AS clock,
     unnest($1::text[], $2::text[], $3::integer[], $4::float8[]) AS w(namespace, key, n, per)
CROSS JOIN LATERAL (
  SELECT count(*) AS n FROM gates g JOIN runs r ON r.gate = g.gate
  WHERE g.namespace = w.namespace AND g.rate_key = w.key AND r.gate IS NOT NULL AND r.state = 'queued'
) AS queued
CROSS JOIN LATERAL (
  SELECT count(*) AS n, array_agg(start.at ORDER BY start.at DESC) AS at
  FROM gates g
  JOIN runs r ON r.gate = g.gate AND r.gate IS NOT NULL AND r.started_at IS NOT NULL
             AND r.started_at > clock.at - make_interval(secs => w.per)
  CROSS JOIN LATERAL (
    SELECT r.started_at AS at
    UNION ALL
    SELECT a.started_at FROM attempts a
    WHERE a.run_id = r.id AND a.attempt < r.attempt AND a.started_at > clock.at - make_interval(secs => w.per)
  ) AS start
  WHERE g.namespace = w.namespace AND g.rate_key = w.key
) AS started

-- name: waiting_runs
-- reads and locks the first `places` runs of each (lane, gate, priority) that are due, by time
SELECT candidate.id, w.lane, w.gate, w.priority, candidate.run_at
FROM unnest($1::text[], $2::text[], $3::integer[], $4::integer[]) AS w(lane, gate, priority, places)
CROSS JOIN LATERAL (
  SELECT r.id, r.run_at FROM runs r
  WHERE r.state = 'pending' AND r.unmet = 0 AND NOT r.held
    AND r.lane = w.lane AND r.gate = w.gate AND r.priority = w.priority AND r.gate IS NOT NULL AND r.run_at <= dts_now()
  ORDER BY r.run_at, r.id
  LIMIT w.places
  FOR UPDATE OF r SKIP LOCKED
) AS candidate

-- name: admit
-- pending → queued: runs behind gates, decided by the leader that holds them
UPDATE runs r
SET state = 'queued', dispatch_seq = r.dispatch_seq + 1, queued_at = dts_now(), version = r.version + 1
FROM unnest($1::uuid[]) AS a(id)
WHERE r.id = a.id AND r.state = 'pending' AND r.unmet = 0 AND NOT r.held
RETURNING r.id AS run_id, r.lane, r.priority, r.run_at, r.dispatch_seq AS seq, r.traceparent
