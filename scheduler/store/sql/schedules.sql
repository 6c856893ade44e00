-- fragment: decided_here
-- conditions on `task`: its fires are decided, and by this release; of the tasks `$1` the versions `$2` are left for later
NOT task.paused AND task.deleted_at IS NULL
AND task.version IS DISTINCT FROM ($2::integer[])[array_position($1::uuid[], task.id)]
-- include: format_known

-- name: due_tasks
-- reads recurring tasks that are due, the longest due first, each with its live runs (oldest first)
SELECT t.id, t.namespace, t.name, t.version, t.spec, t.occurrences, t.fire_cursor, t.next_fire_at, t.created_at,
       now.at AS now, active.runs AS active
FROM (SELECT dts_now() AS at) AS now
CROSS JOIN LATERAL (
  SELECT task.* FROM tasks_recurring AS task
  WHERE task.next_fire_at <= now.at AND
    -- include: decided_here
  ORDER BY task.next_fire_at
  LIMIT $3
) AS t
LEFT JOIN LATERAL (
  SELECT jsonb_agg(jsonb_build_object('id', r.id, 'state', r.state, 'scheduled_for', r.scheduled_for) ORDER BY r.id) AS runs
  FROM runs r
  WHERE r.task_id = t.id AND r.trigger <> 'once' AND r.state IN ('pending', 'queued', 'running')
) AS active ON true

-- name: next_fire
-- reads in how many seconds the next recurring task is due (negative: already), or NULL
SELECT extract(epoch FROM min(task.next_fire_at) - dts_now())::float8
FROM tasks_recurring AS task
WHERE
  -- include: decided_here

-- name: write_fires
-- due → decided, for every task that nobody has touched since it was read, or holds at the moment: its cursor moves on, what
-- became of its planned fires is recorded, and the runs that they make are inserted as pending, queued or skipped, with their
-- dependencies
WITH term AS MATERIALIZED (
  SELECT 1 FROM leadership WHERE epoch = $1 FOR KEY SHARE
), clock AS MATERIALIZED (
  SELECT dts_now() AS at
), free AS MATERIALIZED (
  SELECT d.*
  FROM term,
       unnest($2::uuid[], $3::integer[], $4::bigint[], $5::timestamptz[], $6::timestamptz[], $7::timestamptz[], $8::integer[],
              $9::jsonb[], $10::jsonb[])
         AS d(task_id, version, occurrences, planned, cursor, next_fire_at, made, fires, runs)
  CROSS JOIN LATERAL (SELECT FROM tasks_recurring t WHERE t.id = d.task_id FOR NO KEY UPDATE SKIP LOCKED) AS locked
), decided AS MATERIALIZED (
  UPDATE tasks_recurring t
  SET fire_cursor = greatest(t.fire_cursor, d.cursor), next_fire_at = d.next_fire_at, occurrences = t.occurrences + d.made
  FROM free AS d
  WHERE t.id = d.task_id AND t.version = d.version AND t.occurrences = d.occurrences AND t.next_fire_at = d.planned
    -- Written so that the planner draws no conclusions: "IS NULL" passes for rare while there are no statistics, and
    -- then it compares every task of the batch with every task there is.
    AND CASE WHEN t.paused OR t.deleted_at IS NOT NULL THEN false ELSE true END
  RETURNING t.id, t.namespace, d.fires, d.runs
), fire AS (
  INSERT INTO fires (task_id, scheduled_for, disposition, run_id, until, count, decided_at, epoch)
  SELECT decided.id, f.scheduled_for, f.disposition, f.run_id, f.until, coalesce(f.count, 1), clock.at, $1
  FROM decided, clock, jsonb_to_recordset(decided.fires)
    AS f(scheduled_for timestamptz, disposition text, run_id uuid, until timestamptz, count integer)
), made AS MATERIALIZED (
  SELECT r.*, decided.id AS task_id, decided.namespace
  FROM decided, jsonb_to_recordset(decided.runs)
    AS r(id uuid, queue text, lane text, priority smallint, state text, reason text, scheduled_for timestamptz, run_at timestamptz,
         start_within float8, unmet integer, max_attempts integer, traceparent text, gate text, edges jsonb)
), run AS (
  INSERT INTO runs (id, task_id, namespace, queue, lane, priority, state, reason, trigger, scheduled_for, run_at, start_before,
                    created_at, created_by, queued_at, finished_at, unmet, dispatch_seq, max_attempts, traceparent, gate)
  SELECT m.id, m.task_id, m.namespace, m.queue, m.lane, m.priority, m.state, m.reason, 'schedule', m.scheduled_for, m.run_at,
         greatest(m.run_at, clock.at) + make_interval(secs => m.start_within), clock.at, 'schedule',
         CASE m.state WHEN 'queued' THEN clock.at END, CASE m.state WHEN 'skipped' THEN clock.at END,
         m.unmet, CASE m.state WHEN 'queued' THEN 1 ELSE 0 END, m.max_attempts, m.traceparent, m.gate
  FROM made m, clock
), edge AS (
  INSERT INTO run_dependencies (run_id, position, upstream_task_id, upstream_run_id, upstream_fire, condition, state)
  SELECT m.id, e.position, e.upstream_task_id, e.upstream_run_id, e.upstream_fire, e.condition, e.state
  FROM made m, jsonb_to_recordset(m.edges)
    AS e(position integer, upstream_task_id uuid, upstream_run_id uuid, upstream_fire timestamptz, condition text, state text)
  WHERE m.edges IS NOT NULL
)
SELECT EXISTS (SELECT FROM term) AS led, ARRAY(SELECT id FROM decided) AS tasks

-- name: lock_yielding_runs
-- keeps runs that are to give way as they are, and reads which: those that somebody else holds are waited for by nobody
SELECT id FROM runs WHERE id = ANY($1::uuid[]) FOR NO KEY UPDATE SKIP LOCKED

-- name: planned_upstreams
-- reads tasks that others depend on by definition, deleted ones too, and the run of one-off ones
SELECT task.id, task.name, task.recurring, task.spec, task.fire_cursor, task.created_at, task.deleted_at IS NOT NULL AS deleted,
       once.id AS run_id, true
       -- include: format_known
       AS known
FROM tasks AS task
LEFT JOIN LATERAL (
  SELECT r.id FROM runs r WHERE r.task_id = task.id AND NOT task.recurring ORDER BY r.id DESC LIMIT 1
) AS once ON true
WHERE task.id = ANY($1::uuid[])

-- name: newest_fires
-- reads the newest planned fire of each task at or before a moment, among those that were decided
SELECT w.task_id, w.at, found.scheduled_for, found.until
FROM unnest($1::uuid[], $2::timestamptz[]) AS w(task_id, at)
CROSS JOIN LATERAL (
  SELECT f.scheduled_for, f.until FROM fires f
  WHERE f.task_id = w.task_id AND f.scheduled_for <= w.at
  ORDER BY f.scheduled_for DESC LIMIT 1
) AS found

-- fragment: fire_edges
-- of `waiting`, edges on fires: those that can be decided, and the run that each is then bound to (none: impossible)
SELECT waiting.run_id, waiting.position, waiting.upstream_task_id, waiting.upstream_fire, decided.run_id AS upstream_run_id,
       coalesce(decided.found OR t.id IS NULL OR t.deleted_at IS NOT NULL OR t.next_fire_at IS NULL
                OR t.next_fire_at > waiting.upstream_fire, false) AS ripe
FROM waiting
LEFT JOIN tasks t ON t.id = waiting.upstream_task_id AND t.recurring
LEFT JOIN LATERAL (
  SELECT f.run_id, true AS found FROM fires f
  WHERE f.task_id = waiting.upstream_task_id AND f.scheduled_for <= waiting.upstream_fire
    AND coalesce(f.until, f.scheduled_for) >= waiting.upstream_fire
  ORDER BY f.scheduled_for DESC LIMIT 1
) AS decided ON true
ORDER BY waiting.upstream_task_id, waiting.upstream_fire, waiting.run_id, waiting.position

-- name: fire_edges_of_tasks
-- reads the edges that wait for fires of these tasks
WITH waiting AS MATERIALIZED (
  SELECT d.run_id, d.position, d.upstream_task_id, d.upstream_fire
  FROM unnest($1::uuid[]) AS u(id)
  CROSS JOIN LATERAL (
    SELECT e.* FROM run_dependencies e
    WHERE e.upstream_task_id = u.id AND e.upstream_run_id IS NULL AND e.state = 'waiting'
    OFFSET 0
  ) AS d
)
-- include: fire_edges

-- name: fire_edges_page
-- reads a page of all edges that wait for fires, from a (task, fire) on
WITH waiting AS MATERIALIZED (
  SELECT d.run_id, d.position, d.upstream_task_id, d.upstream_fire
  FROM run_dependencies d
  WHERE d.upstream_run_id IS NULL AND d.state = 'waiting' AND (d.upstream_task_id, d.upstream_fire) > ($1::uuid, $2::timestamptz)
  ORDER BY d.upstream_task_id, d.upstream_fire
  LIMIT $3
)
-- include: fire_edges

-- name: bind_edges
-- waiting → waiting | impossible: a fire was decided, so its edges wait for its run, or for nothing that can come.
-- Returns the runs with an impossible edge, as `recount` takes them
WITH bound AS (
  UPDATE run_dependencies d
  SET upstream_run_id = b.upstream_run_id, state = CASE WHEN b.upstream_run_id IS NULL THEN 'impossible' ELSE 'waiting' END
  FROM unnest($1::uuid[], $2::integer[], $3::uuid[]) AS b(run_id, position, upstream_run_id)
  WHERE d.run_id = b.run_id AND d.position = b.position
    AND CASE WHEN d.state = 'waiting' AND d.upstream_run_id IS NULL THEN true ELSE false END
  RETURNING d.run_id, d.state
)
SELECT DISTINCT r.id, r.version
FROM bound JOIN runs r ON r.id = bound.run_id
WHERE bound.state = 'impossible'
ORDER BY r.id
