-- name: promote
-- pending → queued: due, unblocked runs behind no gate, most urgent first, up to the places that each (lane, priority) has
-- left, and after the (run_at, id) that the caller has looked at before
WITH term AS MATERIALIZED (
  SELECT 1 FROM leadership WHERE epoch = $1 FOR KEY SHARE
), clock AS MATERIALIZED (
  SELECT dts_now() AS at
), due AS MATERIALIZED (
  SELECT candidate.id
  FROM term, clock, unnest($2::text[], $3::smallint[], $4::integer[], $5::timestamptz[], $6::uuid[])
       AS room(lane, priority, places, after_at, after_id)
  CROSS JOIN LATERAL (
    SELECT r.id FROM runs r
    WHERE r.state = 'pending' AND r.unmet = 0 AND NOT r.held AND r.gate IS NULL
      AND r.lane = room.lane AND r.priority = room.priority AND r.run_at <= clock.at
      AND (r.run_at, r.id) > (room.after_at, room.after_id)
    ORDER BY r.run_at, r.id
    LIMIT room.places
    FOR UPDATE OF r SKIP LOCKED
  ) AS candidate
)
UPDATE runs r
SET state = 'queued', dispatch_seq = r.dispatch_seq + 1, queued_at = clock.at, version = r.version + 1
FROM due, clock
WHERE r.id = due.id AND r.state = 'pending'
RETURNING r.id AS run_id, r.lane, r.priority, r.run_at, r.dispatch_seq AS seq, r.traceparent

-- name: next_due
-- reads in how many seconds the next pending run of these (lane, priority), behind no gate and after a (run_at, id), falls
-- due (negative: already), or NULL
SELECT extract(epoch FROM min(candidate.run_at) - dts_now())::float8
FROM unnest($1::text[], $2::smallint[], $3::timestamptz[], $4::uuid[]) AS place(lane, priority, after_at, after_id)
CROSS JOIN LATERAL (
  SELECT r.run_at FROM runs r
  WHERE r.state = 'pending' AND r.unmet = 0 AND NOT r.held AND r.gate IS NULL
    AND r.lane = place.lane AND r.priority = place.priority AND (r.run_at, r.id) > (place.after_at, place.after_id)
  ORDER BY r.run_at, r.id
  LIMIT 1
) AS candidate

-- name: active_lanes
-- reads the lanes that work for workers was ever put in, and whether their queue is paused
SELECT l.lane, l.namespace, l.queue, l.executor, l.requires,
       EXISTS (SELECT FROM queues q WHERE q.namespace = l.namespace AND q.name = l.queue AND q.paused) AS paused
FROM lanes l
WHERE l.executor <> 'workflow'  -- no worker takes these: the leader unfolds them
ORDER BY l.lane

-- name: queued_by_lane
-- reads how many runs stand queued for each (lane, priority), counting no further than `$2` each
SELECT l.lane, p.priority::smallint AS priority, counted.n::integer AS queued
FROM unnest($1::text[]) AS l(lane)
CROSS JOIN generate_series(0, 9) AS p(priority)
CROSS JOIN LATERAL (
  SELECT count(*) AS n FROM (
    SELECT FROM runs r WHERE r.state = 'queued' AND r.lane = l.lane AND r.priority = p.priority LIMIT $2
  ) AS up_to_limit
) AS counted
WHERE counted.n > 0
