-- fragment: task_columns
-- of `t`, a task, and `last`, its newest run
t.id, t.recurring, t.namespace, t.name, t.spec, t.version, t.paused, t.next_fire_at, t.fire_cursor,
t.created_at, t.created_by, t.updated_at, t.updated_by, t.deleted_at,
last.id AS run_id, last.state AS run_state, last.reason AS run_reason, last.scheduled_for AS run_scheduled_for,
last.started_at AS run_started_at, last.finished_at AS run_finished_at, last.exit_code AS run_exit_code,
last.attempt AS run_attempt

-- fragment: last_run
-- of `t`, a task
LATERAL (
  SELECT r.id, r.state, r.reason, r.scheduled_for, r.started_at, r.finished_at, r.exit_code, r.attempt
  FROM runs r WHERE r.task_id = t.id ORDER BY r.id DESC LIMIT 1
) AS last ON true

-- fragment: task_page
-- the tasks of `chosen(id)` with how far `walked(id)` went
bottom AS MATERIALIZED (
  SELECT (SELECT id FROM walked ORDER BY position DESC LIMIT 1) AS floor, (SELECT count(*) FROM walked) AS walked
)
SELECT bottom.floor, bottom.walked, page.*
FROM bottom LEFT JOIN (
  SELECT chosen.position,
  -- include: task_columns
  FROM chosen JOIN tasks t ON t.id = chosen.id
  LEFT JOIN
  -- include: last_run
) AS page ON true
ORDER BY page.position

-- name: get_task
-- reads one task with its newest run
SELECT
-- include: task_columns
FROM tasks t
LEFT JOIN
-- include: last_run
WHERE t.id = $1 AND t.namespace = $2 AND t.deleted_at IS NULL

-- name: lock_task
-- reads one task and keeps it from firing, being triggered or edited until the transaction ends
SELECT id, recurring, namespace, name, spec, version, paused, next_fire_at, fire_cursor, created_at
FROM tasks WHERE id = $1 AND namespace = $2 AND deleted_at IS NULL
FOR UPDATE

-- name: list_tasks
-- reads tasks, newest first, from below `$2`: at most `$3` of the `$4` looked at
WITH walked AS MATERIALIZED (
  SELECT id, queue, row_number() OVER () AS position FROM (
    SELECT t.id, t.queue FROM tasks t
    WHERE t.namespace = $1 AND t.deleted_at IS NULL AND t.id < $2
    ORDER BY t.id DESC LIMIT $4
  ) AS newest
), chosen AS MATERIALIZED (
  SELECT id, position FROM walked WHERE $5::text IS NULL OR queue = $5 ORDER BY position LIMIT $3
),
-- include: task_page

-- name: list_tasks_by_name
-- reads tasks of one name (`$7`: that bear this tag), newest first, from below `$2`.
-- The name is said twice, to be looked up: where most tasks bear one name, walking through all that there are in search of
-- another one looks as cheap to a planner who does not know which is asked for
WITH walked AS MATERIALIZED (
  SELECT id, queue, tags, row_number() OVER () AS position FROM (
    SELECT t.id, t.queue, t.tags FROM tasks t
    WHERE t.namespace = $1 AND t.name = $6 AND t.name BETWEEN $6 AND $6 AND t.deleted_at IS NULL AND t.id < $2
    ORDER BY t.id DESC LIMIT $4
  ) AS newest
), chosen AS MATERIALIZED (
  SELECT id, position FROM walked
  WHERE ($5::text IS NULL OR queue = $5) AND ($7::text IS NULL OR $7 = ANY (tags)) ORDER BY position LIMIT $3
),
-- include: task_page

-- name: list_tasks_by_tag
-- reads tasks that bear a tag, newest first, from below `$2`
WITH walked AS MATERIALIZED (
  SELECT id, queue, row_number() OVER () AS position FROM (
    SELECT t.id, t.queue FROM tasks t
    WHERE t.tags @> ARRAY[$6::text] AND t.tags <> '{}' AND t.namespace = $1 AND t.deleted_at IS NULL AND t.id < $2
    ORDER BY t.id DESC LIMIT $4
  ) AS newest
), chosen AS MATERIALIZED (
  SELECT id, position FROM walked WHERE $5::text IS NULL OR queue = $5 ORDER BY position LIMIT $3
),
-- include: task_page

-- name: list_tasks_between_runs
-- reads recurring tasks that wait for their next fire (`$6`: paused or not), newest first, from below `$2`
WITH walked AS MATERIALIZED (
  SELECT id, queue, name, tags, paused, next_fire_at, row_number() OVER () AS position FROM (
    SELECT t.id, t.queue, t.name, t.tags, t.paused, t.next_fire_at FROM tasks t
    WHERE t.recurring AND t.namespace = $1 AND t.deleted_at IS NULL AND t.id < $2
    ORDER BY t.id DESC LIMIT $4
  ) AS newest
), chosen AS MATERIALIZED (
  SELECT walked.id, walked.position
  FROM walked LEFT JOIN LATERAL (
    SELECT r.state FROM runs r WHERE r.task_id = walked.id ORDER BY r.id DESC LIMIT 1
  ) AS newest ON true
  WHERE ($5::text IS NULL OR queue = $5) AND ($7::text IS NULL OR name = $7) AND ($8::text IS NULL OR $8 = ANY (tags))
    AND paused = $6
    AND (paused OR next_fire_at IS NOT NULL OR newest.state IS NULL)
    AND coalesce(newest.state NOT IN ('pending', 'queued', 'running'), true)
  ORDER BY walked.position LIMIT $3
),
-- include: task_page

-- fragment: tasks_of_runs
-- keeps of `candidates(run_id, task_id, state)` the runs that give their task its status, if that is `$6`, and the task
-- is named `$7` and bears the tag `$8`
walked AS MATERIALIZED (
  SELECT run_id AS id, task_id, state, row_number() OVER () AS position FROM candidates
), chosen AS MATERIALIZED (
  SELECT walked.task_id AS id, walked.id AS run_id, walked.position
  FROM walked JOIN tasks t ON t.id = walked.task_id
  WHERE walked.state = $6 AND t.namespace = $1 AND t.deleted_at IS NULL AND ($5::text IS NULL OR t.queue = $5)
    AND ($7::text IS NULL OR t.name = $7) AND ($8::text IS NULL OR $8 = ANY (t.tags))
    AND ($6 IN ('pending', 'queued', 'running') OR NOT t.recurring OR (t.next_fire_at IS NULL AND NOT t.paused))
    AND NOT EXISTS (SELECT FROM runs newer WHERE newer.task_id = walked.task_id AND newer.id > walked.id)
  ORDER BY walked.position LIMIT $3
),

-- name: list_tasks_ended
-- reads tasks whose newest run ended in the state `$6` (said twice: see list_tasks_by_name), in the order of these runs,
-- from below the run `$2`
WITH candidates AS MATERIALIZED (
  SELECT r.id AS run_id, r.task_id, r.state FROM runs r
  WHERE r.namespace = $1 AND r.state = $6 AND r.state BETWEEN $6 AND $6
    AND r.state IN ('completed', 'failed', 'cancelled', 'skipped', 'dead_letter') AND r.id < $2
  ORDER BY r.id DESC LIMIT $4
),
-- include: tasks_of_runs
-- include: task_page

-- name: list_tasks_pending
-- reads tasks whose newest run is in the state `$6` = pending, in the order of these runs, from below the run `$2`
WITH candidates AS MATERIALIZED (
  SELECT r.id AS run_id, r.task_id, r.state FROM runs r
  WHERE r.namespace = $1 AND r.id < $2
  ORDER BY r.id DESC LIMIT $4
),
-- include: tasks_of_runs
-- include: task_page

-- name: list_tasks_active
-- reads tasks whose newest run is in the state `$6` = queued or running, in the order of these runs, from below the run `$2`
WITH candidates AS MATERIALIZED (
  SELECT run_id, task_id, state FROM (
    SELECT r.id AS run_id, r.task_id, r.state FROM runs r
    WHERE $6 = 'queued' AND r.state = 'queued' AND r.namespace = $1 AND r.id < $2
    UNION ALL
    SELECT r.id, r.task_id, r.state FROM runs r
    WHERE $6 = 'running' AND r.state = 'running' AND r.namespace = $1 AND r.id < $2
  ) AS active
  ORDER BY run_id DESC LIMIT $4
),
-- include: tasks_of_runs
-- include: task_page

-- name: resolve_names
-- reads the live tasks of each name: at most two each, which is enough to know that a name is ambiguous.
-- Of one-off tasks so named, the newest 1,000 are looked at; the name is said twice, see list_tasks_by_name
SELECT wanted.name, found.id
FROM unnest($2::text[]) AS wanted(name)
CROSS JOIN LATERAL (
  SELECT id FROM (
    SELECT t.id FROM tasks_recurring t WHERE t.namespace = $1 AND t.name = wanted.name AND t.deleted_at IS NULL
    UNION ALL
    SELECT newest.id FROM (
      SELECT t.id, t.deleted_at FROM tasks_once t
      WHERE t.namespace = $1 AND t.name = wanted.name AND t.name BETWEEN wanted.name AND wanted.name
      ORDER BY t.id DESC LIMIT 1000
    ) AS newest
    WHERE newest.deleted_at IS NULL
      AND EXISTS (SELECT FROM runs r WHERE r.task_id = newest.id AND r.state IN ('pending', 'queued', 'running'))
  ) AS live
  LIMIT 2
) AS found

-- name: upstream_tasks
-- reads tasks that others want to depend on, each with its newest run and its newest live run
SELECT t.id, t.recurring, t.name, t.spec, t.next_fire_at, newest.id AS run_id, live.id AS live_run_id
FROM tasks t
LEFT JOIN LATERAL (SELECT r.id FROM runs r WHERE r.task_id = t.id ORDER BY r.id DESC LIMIT 1) AS newest ON true
LEFT JOIN LATERAL (
  SELECT r.id FROM runs r WHERE r.task_id = t.id AND r.state IN ('pending', 'queued', 'running') ORDER BY r.id DESC LIMIT 1
) AS live ON true
WHERE t.id = ANY($2::uuid[]) AND t.namespace = $1 AND t.deleted_at IS NULL

-- name: edit_task
-- version n → n + 1: a new definition
UPDATE tasks
SET spec = $3, name = $4, queue = $5, tags = $6, version = version + 1, updated_at = dts_now(), updated_by = $7,
    fire_cursor  = CASE WHEN recurring THEN greatest(fire_cursor, $8) END,
    next_fire_at = CASE WHEN recurring THEN $9::timestamptz END
WHERE id = $1 AND version = $2 AND deleted_at IS NULL
RETURNING id

-- name: leave_behind
-- planned → missed: a stretch of fires that nobody had decided when an edit gave up their plan. Of a cursor that was set back by
-- hand, the first may have been decided before
INSERT INTO fires (task_id, scheduled_for, disposition, until, count, decided_at, epoch)
SELECT $1, $2, $3, $4, $5, dts_now(), leadership.epoch FROM leadership
ON CONFLICT (task_id, scheduled_for) DO NOTHING

-- name: apply_edit
-- queued → pending: waiting runs of an edited task follow it, those that are not queued too; one-off runs take a new time too.
-- running → running: the attempt ends under the definition that it began with, but should its run come back, it waits where
-- the new one says, for workers that the new command asks for. It counts behind the new gate from now on: gates count rows,
-- each behind one gate, so no number can drift, and a rule that is new to the task has to know what executes already. The
-- price is that a gate which the task leaves has this place free before the attempt has ended.
UPDATE runs r
SET state        = CASE WHEN r.state = 'running' THEN 'running' ELSE 'pending' END,
    queued_at    = CASE WHEN r.state = 'running' THEN r.queued_at END,
    dispatch_seq = CASE WHEN r.state = 'running' THEN r.dispatch_seq ELSE r.dispatch_seq + 1 END,
    run_at       = CASE WHEN r.state = 'running' THEN r.run_at ELSE coalesce($6, r.run_at) END,
    start_before = CASE WHEN r.state = 'running' THEN r.start_before
                        ELSE coalesce($6, r.run_at) + make_interval(secs => $7) END,
    queue = $2, lane = $3, priority = $4, max_attempts = $5, gate = $8, version = r.version + 1
WHERE r.task_id = $1 AND r.state IN ('pending', 'queued', 'running')
RETURNING r.id

-- name: pause_task
-- not paused → paused: no more fires
UPDATE tasks SET paused = true, updated_at = dts_now(), updated_by = $2 WHERE id = $1 AND NOT paused RETURNING id

-- name: lock_runs_to_unfold
-- keeps the waiting runs of a workflow from being unfolded until the transaction ends: what comes next sees which have been
SELECT r.id FROM runs r
WHERE r.task_id = $1 AND r.state = 'pending' AND EXISTS (SELECT FROM workflows w WHERE w.task_id = $1)
FOR UPDATE OF r

-- name: hold_runs
-- queued → pending: waiting runs of a paused task are held, whether they were queued or not; those of a workflow that have
-- unfolded go on, as executing ones do
UPDATE runs r
SET state = 'pending', held = true, queued_at = NULL, dispatch_seq = r.dispatch_seq + 1, version = r.version + 1
WHERE r.task_id = $1 AND r.state IN ('pending', 'queued') AND NOT r.held
  AND NOT EXISTS (SELECT FROM workflow_runs w WHERE w.run_id = r.id AND w.unfolded_at IS NOT NULL)
RETURNING r.id

-- name: resume_task
-- paused → not paused: fires again; what fell due meanwhile is judged by the task's catchup rule
UPDATE tasks SET paused = false, updated_at = dts_now(), updated_by = $2 WHERE id = $1 AND paused RETURNING id

-- name: release_runs
-- held → free: waiting runs of a task that was resumed
UPDATE runs r SET held = false, version = r.version + 1
WHERE r.task_id = $1 AND r.state = 'pending' AND r.held
RETURNING r.id

-- name: delete_task
-- present → deleted: no more fires, not found any more; its history stays until retention takes it
UPDATE tasks SET deleted_at = dts_now(), next_fire_at = NULL, updated_at = dts_now(), updated_by = $2
WHERE id = $1 AND deleted_at IS NULL
RETURNING id

-- name: live_runs
-- reads the live runs of a task, newest first
SELECT id, state, worker_id FROM runs
WHERE task_id = $1 AND state IN ('pending', 'queued', 'running')
ORDER BY id DESC

-- name: waiting_dependents
-- reads the live runs of other tasks that wait for a run or a fire of this one
SELECT DISTINCT d.run_id
FROM (
  SELECT d.run_id FROM runs r JOIN run_dependencies d ON d.upstream_run_id = r.id AND d.state = 'waiting'
  WHERE r.task_id = $1 AND r.state IN ('pending', 'queued', 'running')
  UNION ALL
  SELECT d.run_id FROM run_dependencies d
  WHERE d.upstream_task_id = $1 AND d.upstream_run_id IS NULL AND d.state = 'waiting'
) AS d
JOIN runs waiting ON waiting.id = d.run_id AND waiting.state = 'pending' AND waiting.task_id <> $1
ORDER BY d.run_id

-- name: dependent_definitions
-- reads the recurring tasks that depend on this one by definition
SELECT t.id, t.name FROM tasks_recurring t
WHERE t.namespace = $2 AND t.deleted_at IS NULL AND t.id <> $3
  AND t.spec @> jsonb_build_object('depends_on', jsonb_build_array(jsonb_build_object('task', $1::text)))
ORDER BY t.id LIMIT 10

-- name: hold_dependencies
-- keeps other edits of what the recurring tasks of a namespace depend on out until the transaction ends: a cycle is closed by
-- several of them, of which each alone closes none
SELECT pg_advisory_xact_lock(hashtext('dts_dependencies'), hashtext($1))

-- name: depends_on_of_recurring
-- reads what the recurring tasks depend on by definition, to find cycles
SELECT t.id, t.name, t.spec -> 'depends_on' AS depends_on FROM tasks_recurring t
WHERE t.namespace = $1 AND t.deleted_at IS NULL AND t.spec ? 'depends_on'

-- name: skip_dependents
-- pending → skipped: runs whose dependency was deleted
WITH lanes_open AS (
  SELECT '{}'::text[] AS lanes
), cut AS (
  UPDATE run_dependencies d SET state = 'impossible' WHERE d.run_id = ANY($1::uuid[]) AND d.state = 'waiting'
  RETURNING 1
), ended AS (
  UPDATE runs r
  SET state = 'skipped', reason = 'dependency_deleted', finished_at = dts_now(), version = r.version + 1
  FROM (SELECT count(*) FROM cut) AS first_all_edges
  WHERE r.id = ANY($1::uuid[]) AND r.state = 'pending'
  RETURNING r.id AS run_id, r.state
),
-- include: settle_dependents
SELECT kind, run_id, state, lane, priority, run_at, seq, traceparent FROM settled

-- name: count_occurrence
-- occurrences n → n + 1: a run is made for the task, in the same transaction
UPDATE tasks SET occurrences = occurrences + 1 WHERE id = $1

-- name: insert_run
-- (nothing) → pending | queued | skipped: a run made by hand
INSERT INTO runs (id, task_id, namespace, queue, lane, priority, state, reason, trigger, run_at, start_before, created_at,
                  created_by, queued_at, finished_at, unmet, dispatch_seq, max_attempts, traceparent, gate)
SELECT $1, $2, $3, $4, $5, $6, $7::text, $8, 'manual', now.at, now.at + make_interval(secs => $9), now.at,
       $10, CASE $7::text WHEN 'queued' THEN now.at END, CASE $7::text WHEN 'skipped' THEN now.at END, $11,
       CASE $7::text WHEN 'queued' THEN 1 ELSE 0 END, $12, $13, $14
FROM (SELECT dts_now() AS at) AS now
RETURNING run_at

-- name: list_fires
-- reads what became of a task's planned fires, latest first, from before `$2`
SELECT f.scheduled_for, f.disposition, f.run_id, f.until, f.count, f.decided_at
FROM fires f WHERE f.task_id = $1 AND f.scheduled_for < $2
  AND ($4::text IS NULL OR f.disposition = $4 OR split_part(f.disposition, ':', 1) = $4)
ORDER BY f.scheduled_for DESC LIMIT $3

-- name: fires_planned_near
-- reads how many tasks of a namespace fire next within each of the given minutes
SELECT w.minute, (
  SELECT count(*) FROM tasks_recurring t
  WHERE t.namespace = $2 AND NOT t.paused AND t.deleted_at IS NULL AND t.next_fire_at >= w.minute
    AND t.next_fire_at < w.minute + interval '1 minute'
) AS tasks
FROM unnest($1::timestamptz[]) AS w(minute)
