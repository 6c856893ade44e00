-- fragment: event_columns
-- of `e`, an event, with the runs that began because of it
e.id, e.name, e.payload, e.published_at, e.published_by,
ARRAY(SELECT r.run_id FROM event_runs r WHERE r.event_id = e.id ORDER BY r.run_id) AS run_ids,
ARRAY(SELECT r.task_id FROM event_runs r WHERE r.event_id = e.id ORDER BY r.run_id) AS task_ids

-- name: insert_event
-- (nothing) → published
INSERT INTO events (id, namespace, name, payload, published_at, published_by) VALUES ($1, $2, $3, $4, dts_now(), $5)
RETURNING published_at

-- name: event_subscribers
-- reads the tasks whose schedule is an event, in the order of their ids, and keeps them as they are until the transaction
-- ends; of those that somebody changes meanwhile, it is what they become that counts
SELECT t.id, t.name, t.spec FROM tasks_recurring t
WHERE t.namespace = $1 AND t.spec ->> 'schedule' = $2 AND t.spec ->> 'schedule' LIKE '@event %'
  AND t.deleted_at IS NULL AND NOT t.paused
ORDER BY t.id
FOR UPDATE

-- name: insert_event_runs
-- (nothing) → noted: which runs began because of an event
INSERT INTO event_runs (run_id, task_id, event_id) SELECT n.run_id, n.task_id, $3
FROM unnest($1::uuid[], $2::uuid[]) AS n (run_id, task_id)

-- name: list_events
-- reads events, newest first, from below `$2`
SELECT
-- include: event_columns
FROM events e WHERE e.namespace = $1 AND e.id < $2 ORDER BY e.id DESC LIMIT $3

-- name: list_events_by_name
-- reads events of one name (said twice: see list_tasks_by_name), newest first, from below `$2`
SELECT
-- include: event_columns
FROM events e
WHERE e.namespace = $1 AND e.name = $4 AND e.name BETWEEN $4 AND $4 AND e.id < $2 ORDER BY e.id DESC LIMIT $3

-- name: event_of_run
-- reads the event that a run began with
SELECT
-- include: event_columns
FROM event_runs b JOIN events e ON e.id = b.event_id WHERE b.run_id = $1 AND e.namespace = $2

-- name: forget_events
-- published → (nothing): up to `$2`, after `$1` seconds, with what says which runs began because of them
WITH gone AS (
  DELETE FROM events e
  WHERE e.id IN (
    SELECT o.id FROM events o WHERE o.id < dts_first_id_at(dts_now() - make_interval(secs => $1)) ORDER BY o.id LIMIT $2
  )
  RETURNING 1
)
SELECT count(*) FROM gone
