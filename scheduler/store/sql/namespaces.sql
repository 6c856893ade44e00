-- fragment: namespace_columns
-- of `n`, a namespace
n.name, n.max_pending, n.max_tasks, n.submit_rate, n.created_at, n.created_by

-- name: list_namespaces
-- reads every namespace that is not deleted
SELECT
-- include: namespace_columns
FROM namespaces n WHERE n.deleted_at IS NULL ORDER BY n.name

-- name: insert_namespace
-- (nothing) → present: nothing is inserted where the name is or was in use
INSERT INTO namespaces AS n (name, max_pending, max_tasks, submit_rate, created_at, created_by)
VALUES ($1, $2, $3, $4, dts_now(), $5)
ON CONFLICT (name) DO NOTHING
RETURNING
-- include: namespace_columns

-- name: set_quotas
-- quotas (any) → quotas
UPDATE namespaces n SET max_pending = $2, max_tasks = $3, submit_rate = $4, updated_at = dts_now(), updated_by = $5
WHERE n.name = $1 AND n.deleted_at IS NULL
RETURNING
-- include: namespace_columns

-- name: lock_namespace
-- reads a namespace and keeps others from changing it until the transaction ends
SELECT n.name FROM namespaces n WHERE n.name = $1 AND n.deleted_at IS NULL FOR UPDATE

-- name: delete_namespace
-- present → deleted: its name stays taken
UPDATE namespaces SET deleted_at = dts_now(), deleted_by = $2 WHERE name = $1 AND deleted_at IS NULL

-- fragment: namespace_holds
-- of `n`, a namespace: whether it has recurring tasks, and whether it has live runs
EXISTS (SELECT FROM tasks_recurring t WHERE t.namespace = n.name AND t.deleted_at IS NULL) AS tasks,
       EXISTS (SELECT FROM lanes l JOIN runs r ON r.lane = l.lane
               WHERE l.namespace = n.name AND r.state = 'pending' AND r.unmet = 0 AND NOT r.held AND r.gate IS NULL)
    OR EXISTS (SELECT FROM lanes l JOIN runs r ON r.lane = l.lane
               WHERE l.namespace = n.name AND r.state = 'pending' AND r.unmet = 0 AND NOT r.held AND r.gate IS NOT NULL)
    OR EXISTS (SELECT FROM runs r WHERE r.namespace = n.name AND r.state = 'pending' AND (r.unmet > 0 OR r.held))
    OR EXISTS (SELECT FROM lanes l JOIN runs r ON r.lane = l.lane WHERE l.namespace = n.name AND r.state = 'queued')
    OR EXISTS (SELECT FROM runs r WHERE r.namespace = n.name AND r.state = 'running') AS runs

-- name: namespace_in_use
-- reads whether a namespace has recurring tasks, and whether it has live runs
SELECT
-- include: namespace_holds
FROM (SELECT $1::text AS name) AS n

-- name: deleted_namespaces_in_use
-- reads up to `$1` namespaces that are deleted and into which something has got all the same
SELECT n.name
FROM namespaces n
CROSS JOIN LATERAL (
  SELECT
  -- include: namespace_holds
  OFFSET 0
) AS held
WHERE n.deleted_at IS NOT NULL AND (held.tasks OR held.runs)
ORDER BY n.name LIMIT $1

-- name: delete_tasks_of_namespace
-- present → deleted: recurring tasks of a deleted namespace, up to `$2`, and the workflows that they carry
WITH present AS MATERIALIZED (
  SELECT t.id FROM tasks_recurring t WHERE t.namespace = $1 AND t.deleted_at IS NULL ORDER BY t.id LIMIT $2 FOR UPDATE
), forgotten AS (
  DELETE FROM workflows w USING present WHERE w.task_id = present.id
)
UPDATE tasks_recurring t
SET deleted_at = dts_now(), next_fire_at = NULL, updated_at = dts_now(), updated_by = n.deleted_by
FROM present, namespaces n
WHERE t.id = present.id AND n.name = $1
RETURNING t.id

-- name: count_recurring
-- reads how many recurring tasks a namespace has, counting no further than `$2`
SELECT count(*) FROM (SELECT FROM tasks_recurring t WHERE t.namespace = $1 AND t.deleted_at IS NULL LIMIT $2) AS counted

-- name: count_waiting_in_namespace
-- reads how many runs of a namespace wait, counting no further than `$2` in each lane and state
SELECT coalesce(sum(counted.n), 0)::bigint + (
  SELECT count(*) FROM (
    SELECT FROM runs r WHERE r.namespace = $1 AND r.state = 'pending' AND (r.unmet > 0 OR r.held) LIMIT $2
  ) AS blocked
)
FROM lanes l
CROSS JOIN LATERAL (
  SELECT (SELECT count(*) FROM (
            SELECT FROM runs r WHERE r.lane = l.lane AND r.state = 'pending' AND r.unmet = 0 AND NOT r.held
              AND r.gate IS NULL LIMIT $2
          ) AS due)
       + (SELECT count(*) FROM (
            SELECT FROM runs r WHERE r.lane = l.lane AND r.state = 'pending' AND r.unmet = 0 AND NOT r.held
              AND r.gate IS NOT NULL LIMIT $2
          ) AS gated)
       + (SELECT count(*) FROM (SELECT FROM runs r WHERE r.lane = l.lane AND r.state = 'queued' LIMIT $2) AS offered) AS n
) AS counted
WHERE l.namespace = $1
