-- fragment: inserted_once
new AS (
  SELECT *
  FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::smallint[], $9::jsonb[],
              $10::text[], $11::timestamptz[], $12::float8[], $13::float8[], $14::integer[], $15::integer[], $16::text[],
              $17::text[], $18::text[], $19::text[], $20::text[])
       AS n(task_id, run_id, namespace, actor, name, queue, lane, priority, spec,
            state, run_at, delay, start_within, unmet, max_attempts, traceparent, gate, request_id, action, address)
), task AS (
  INSERT INTO tasks_once (id, recurring, namespace, name, queue, tags, spec, occurrences,
                          created_at, created_by, updated_at, updated_by)
  SELECT task_id, false, namespace, name, queue,
         CASE WHEN spec ? 'tags' THEN ARRAY(SELECT jsonb_array_elements_text(spec -> 'tags')) ELSE '{}' END,
         spec, 1, clock.at, actor, clock.at, actor
  FROM new, clock
), run AS (
  INSERT INTO runs (id, task_id, namespace, queue, lane, priority, state, trigger, run_at, start_before,
                    created_at, created_by, queued_at, unmet, dispatch_seq, max_attempts, traceparent, gate)
  SELECT run_id, task_id, namespace, queue, lane, priority, state, 'once',
         coalesce(run_at, clock.at + make_interval(secs => delay)),
         coalesce(run_at, clock.at + make_interval(secs => delay)) + make_interval(secs => start_within),
         clock.at, actor, CASE state WHEN 'queued' THEN clock.at END, unmet,
         CASE state WHEN 'queued' THEN 1 ELSE 0 END, max_attempts, traceparent, gate
  FROM new, clock
), logged AS (
  INSERT INTO audit_log (at, namespace, actor, action, object, request_id, status, version_after, address)
  SELECT clock.at, namespace, actor, action, task_id::text, request_id, 201, 1, address
  FROM new, clock
  WHERE request_id IS NOT NULL
)

-- name: insert_once
-- (nothing) → pending | queued: one-off tasks, each with its one run
WITH clock AS MATERIALIZED (
  SELECT dts_now() AS at
),
-- include: inserted_once
SELECT at FROM clock

-- name: insert_once_ahead
-- (nothing) → queued: the same, seen by everybody before the log of it is forced to disk; `force_log` must follow
WITH clock AS MATERIALIZED (
  SELECT dts_now() AS at, set_config('synchronous_commit', 'off', true)
),
-- include: inserted_once
SELECT at FROM clock

-- name: force_log
-- writes the log of all that was committed before to disk, and to standbys that commits wait for
SELECT pg_logical_emit_message(true, 'dts', '')

-- name: insert_recurring
-- (nothing) → scheduled: recurring definitions; a name that is taken in its namespace is left out of the answer
INSERT INTO tasks (id, recurring, namespace, name, queue, tags, spec, fire_cursor, next_fire_at,
                   created_at, created_by, updated_at, updated_by)
SELECT n.task_id, true, n.namespace, n.name, n.queue,
       CASE WHEN n.spec ? 'tags' THEN ARRAY(SELECT jsonb_array_elements_text(n.spec -> 'tags')) ELSE '{}' END,
       n.spec, n.fire_cursor, n.next_fire_at, clock.at, n.actor, clock.at, n.actor
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::jsonb[], $7::timestamptz[], $8::timestamptz[])
     AS n(task_id, namespace, actor, name, queue, spec, fire_cursor, next_fire_at),
     (SELECT dts_now() AS at) AS clock
ON CONFLICT DO NOTHING
RETURNING id

-- name: insert_lanes
-- (nothing) → lane: remembered for the leader and for workers that satisfy it
INSERT INTO lanes (lane, namespace, queue, executor, requires)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::jsonb[])
ON CONFLICT DO NOTHING

-- name: database_now
-- reads the clock that decides what is due
SELECT dts_now()

-- name: lock_upstream_runs
-- reads upstream runs and keeps them from ending until the edges stand
SELECT id, task_id, state FROM runs WHERE id = ANY($1::uuid[]) ORDER BY id FOR SHARE

-- name: upstream_fires
-- reads what was decided about planned fires that new edges wait for, and keeps the definition from firing meanwhile
SELECT f.task_id, f.scheduled_for, f.disposition, f.run_id
FROM unnest($1::uuid[], $2::timestamptz[]) AS w(task_id, fire)
JOIN fires f ON f.task_id = w.task_id AND f.scheduled_for = w.fire

-- name: lock_upstream_tasks
-- keeps definitions from firing or being deleted until the edges stand
SELECT id, deleted_at FROM tasks WHERE id = ANY($1::uuid[]) ORDER BY id FOR SHARE

-- name: insert_dependencies
-- (nothing) → waiting | met | impossible: edges of runs that are inserted in the same transaction
INSERT INTO run_dependencies (run_id, position, upstream_task_id, upstream_run_id, upstream_fire, condition, state)
SELECT * FROM unnest($1::uuid[], $2::integer[], $3::uuid[], $4::uuid[], $5::timestamptz[], $6::text[], $7::text[])

-- name: skip_unsatisfiable
-- pending → skipped: new runs with an edge that can no longer hold
WITH lanes_open AS (
  SELECT '{}'::text[] AS lanes
), ended AS (
  UPDATE runs r
  SET state = 'skipped', reason = 'dependency_failed', finished_at = dts_now(), version = r.version + 1
  WHERE r.id = ANY($1::uuid[]) AND r.state = 'pending'
  RETURNING r.id AS run_id, r.state
),
-- include: settle_dependents
SELECT kind, run_id, state, lane, priority, run_at, seq, traceparent FROM settled

-- name: hold_key
-- (nothing) → held: an idempotency key, unless it is held already (waits for a concurrent holder to commit or give up)
INSERT INTO idempotency_keys (namespace, key, fingerprint, task_id, run_id, created_at)
VALUES ($1, $2, $3, $4, $5, dts_now())
ON CONFLICT (namespace, key) DO NOTHING
RETURNING task_id

-- name: free_key
-- held → (nothing): the idempotency key of a task that was deleted, when it is asked for again
DELETE FROM idempotency_keys WHERE namespace = $1 AND key = $2 AND task_id = $3

-- name: held_key
-- reads who holds an idempotency key
SELECT fingerprint, task_id FROM idempotency_keys WHERE namespace = $1 AND key = $2
