-- fragment: lost_fires
-- fires that no week was made for. Older ones belong in the default partition, where a backfill or a long absence goes back
-- beyond the first week
FROM fires_default f, installation i
WHERE f.scheduled_for > greatest(dts_now() - interval '7 days', date_trunc('week', i.created_at, 'UTC'))

-- name: missing_weeks
-- reads which of the next `$1` weeks, this one included, have no partitions yet; and which weeks before have rows in the
-- default partitions (nobody made them in time). Those to come first: they cost little, and it is for them to take new rows
WITH RECURSIVE outside AS (
  SELECT date_trunc('week', dts_time_of_id(least(
    (SELECT r.id FROM runs_default r ORDER BY r.id LIMIT 1),
    (SELECT t.id FROM tasks_once_default t ORDER BY t.id LIMIT 1)
  )), 'UTC') AS week
  UNION ALL
  SELECT date_trunc('week', dts_time_of_id(least(
    (SELECT r.id FROM runs_default r WHERE r.id >= dts_first_id_at(o.week + interval '7 days') ORDER BY r.id LIMIT 1),
    (SELECT t.id FROM tasks_once_default t WHERE t.id >= dts_first_id_at(o.week + interval '7 days') ORDER BY t.id LIMIT 1)
  )), 'UTC')
  FROM outside o WHERE o.week < dts_now()
)
SELECT week
FROM (
  SELECT date_trunc('week', dts_now() + n * interval '7 days', 'UTC') AS week FROM generate_series(0, $1::integer) AS n
  UNION
  SELECT week FROM outside WHERE week < dts_now()
  UNION
  SELECT date_trunc('week', f.scheduled_for, 'UTC')
  -- include: lost_fires
) AS w
WHERE to_regclass('runs_' || to_char(week AT TIME ZONE 'UTC', 'YYYYMMDD')) IS NULL
   OR to_regclass('fires_' || to_char(week AT TIME ZONE 'UTC', 'YYYYMMDD')) IS NULL
ORDER BY week DESC

-- name: be_brief
-- gives up on locks after `$1` milliseconds, for the rest of this transaction
SELECT set_config('lock_timeout', $1::text, true)

-- name: be_quick
-- gives up on statements after `$1` milliseconds, for the rest of this transaction
SELECT set_config('statement_timeout', $1::text, true)

-- name: create_week
-- (nothing) → partitions of the week that holds a moment, with what stood in the default ones
SELECT dts_create_week($1::timestamptz)

-- name: old_weeks
-- reads the weeks that ended more than `$1` seconds ago and still have partitions
SELECT DISTINCT week
FROM (
  SELECT to_timestamp(right(c.relname, 8), 'YYYYMMDD') AS week
  FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
  WHERE i.inhparent IN ('runs'::regclass, 'fires'::regclass) AND c.relname ~ '_[0-9]{8}$'
) AS w
WHERE week + interval '7 days' <= dts_now() - make_interval(secs => $1)
ORDER BY week

-- name: week_kept_for
-- reads what in a week is still needed, or NULL
SELECT dts_week_kept_for($1::timestamptz)

-- name: forget_week_keys
-- held → (nothing): up to `$2` idempotency keys of a week's tasks; those of recurring ones, which name no run, are held until
-- the task is forgotten
WITH due AS MATERIALIZED (
  SELECT k.namespace, k.key FROM idempotency_keys k
  WHERE k.task_id >= dts_first_id_at($1::timestamptz) AND k.task_id < dts_first_id_at($1::timestamptz + interval '7 days')
    AND (k.run_id IS NOT NULL OR NOT EXISTS (SELECT FROM tasks_recurring t WHERE t.id = k.task_id))
  ORDER BY k.task_id
  LIMIT $2
), gone AS (
  DELETE FROM idempotency_keys k USING due WHERE k.namespace = due.namespace AND k.key = due.key
  RETURNING 1
)
SELECT count(*) FROM gone

-- name: forget_week_checkpoints
-- kept → (nothing): up to `$2` checkpoints of a week's runs
WITH due AS MATERIALIZED (
  SELECT c.run_id FROM checkpoints c
  WHERE c.run_id >= dts_first_id_at($1::timestamptz) AND c.run_id < dts_first_id_at($1::timestamptz + interval '7 days')
  ORDER BY c.run_id
  LIMIT $2
), gone AS (
  DELETE FROM checkpoints c USING due WHERE c.run_id = due.run_id
  RETURNING 1
)
SELECT count(*) FROM gone

-- name: detach_week
-- history → detached, unless something in it is still needed: then the reason
SELECT dts_detach_week($1::timestamptz)

-- name: detach_fires
-- history → detached, unless something in it is still needed: then the reason
SELECT dts_detach_fires($1::timestamptz)

-- name: drop_detached
-- detached → (nothing)
SELECT dts_drop_detached()

-- name: forget_old_fires
-- decided → (nothing): up to `$2` fires so old that no partition covers them (a missed stretch begins where it began, and a
-- backfill goes back as far as it likes), once what was decided about them is old too
WITH due AS MATERIALIZED (
  SELECT f.task_id, f.scheduled_for FROM fires_default f
  WHERE f.decided_at <= dts_now() - make_interval(secs => $1) AND f.scheduled_for <= dts_now() - make_interval(secs => $1)
  ORDER BY f.decided_at
  LIMIT $2
), gone AS (
  DELETE FROM fires_default f USING due WHERE f.task_id = due.task_id AND f.scheduled_for = due.scheduled_for
  RETURNING 1
)
SELECT count(*) FROM gone

-- name: close_dead_letters
-- open → discarded: up to `$2` dead letters that nobody has decided about for `$1` seconds, so that they hold no history for
-- ever
WITH due AS MATERIALIZED (
  SELECT d.id FROM dead_letter_tasks d
  WHERE d.state = 'open' AND d.created_at <= dts_now() - make_interval(secs => $1)
  ORDER BY d.created_at
  LIMIT $2
), closed AS (
  UPDATE dead_letter_tasks d SET state = 'discarded', waits = false, decided_at = dts_now(), decided_by = 'retention'
  FROM due
  WHERE d.id = due.id AND d.state = 'open'
  RETURNING 1
)
SELECT count(*) FROM closed

-- name: forget_dead_letters
-- replayed | discarded → (nothing): up to `$2`, after `$1` seconds
WITH due AS MATERIALIZED (
  SELECT d.id FROM dead_letter_tasks d
  WHERE d.state <> 'open' AND d.decided_at <= dts_now() - make_interval(secs => $1)
  ORDER BY d.decided_at
  LIMIT $2
), gone AS (
  DELETE FROM dead_letter_tasks d USING due WHERE d.id = due.id AND d.state <> 'open'
  RETURNING 1
)
SELECT count(*) FROM gone

-- name: forget_deleted_tasks
-- deleted → (nothing): up to `$2` recurring definitions of which no run is left, and the keys that they were created under
WITH due AS MATERIALIZED (
  SELECT t.id FROM tasks t
  WHERE t.recurring AND t.deleted_at IS NOT NULL AND t.deleted_at <= dts_now() - make_interval(secs => $1)
    AND NOT EXISTS (SELECT FROM runs r WHERE r.task_id = t.id)
  ORDER BY t.deleted_at
  LIMIT $2
), gone AS (
  DELETE FROM tasks t USING due WHERE t.id = due.id AND t.recurring
  RETURNING t.id
), key AS (
  DELETE FROM idempotency_keys k USING gone WHERE k.task_id = gone.id AND k.run_id IS NULL
)
SELECT count(*) FROM gone

-- name: forget_left
-- kept → (nothing): output, outputs and checkpoints of up to `$1` runs that ended longer ago than their tasks' `retention`;
-- of a run whose dead letter is open, nothing
WITH RECURSIVE term AS (
  (SELECT r.kept_for FROM runs r WHERE r.kept_for IS NOT NULL AND r.finished_at IS NOT NULL ORDER BY r.kept_for LIMIT 1)
  UNION ALL
  SELECT (
    SELECT r.kept_for FROM runs r
    WHERE r.kept_for > term.kept_for AND r.kept_for IS NOT NULL AND r.finished_at IS NOT NULL
    ORDER BY r.kept_for LIMIT 1
  )
  FROM term WHERE term.kept_for IS NOT NULL
), due AS MATERIALIZED (
  SELECT r.id FROM term CROSS JOIN LATERAL (
    SELECT r.id FROM runs r
    WHERE r.kept_for = term.kept_for AND r.kept_for IS NOT NULL AND r.finished_at IS NOT NULL
      AND r.finished_at <= (SELECT dts_now()) - make_interval(secs => term.kept_for)
      AND NOT EXISTS (SELECT FROM dead_letter_tasks d WHERE d.run_id = r.id AND d.state = 'open')
    ORDER BY r.finished_at
    LIMIT $1
  ) AS r
  LIMIT $1
), emptied AS (
  UPDATE runs r SET kept_for = NULL, outputs = NULL, output_tail = NULL, version = r.version + 1
  FROM due
  WHERE r.id = due.id AND r.kept_for IS NOT NULL AND r.finished_at IS NOT NULL
  RETURNING r.id
), output AS (
  DELETE FROM output_chunks o USING emptied WHERE o.run_id = emptied.id
), checkpoint AS (
  DELETE FROM checkpoints c USING emptied WHERE c.run_id = emptied.id
)
SELECT count(*) FROM emptied

-- name: uncovered
-- reads which default partitions hold rows: their weeks have no partitions
SELECT name
FROM (VALUES ('runs_default', EXISTS (SELECT FROM runs_default)),
             ('tasks_once_default', EXISTS (SELECT FROM tasks_once_default)),
             ('attempts_default', EXISTS (SELECT FROM attempts_default)),
             ('run_dependencies_default', EXISTS (SELECT FROM run_dependencies_default)),
             ('output_chunks_default', EXISTS (SELECT FROM output_chunks_default)),
             ('fires_default', EXISTS (
               SELECT
               -- include: lost_fires
             ))) AS d(name, used)
WHERE used
