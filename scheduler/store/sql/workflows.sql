-- fragment: workflow_columns
-- of `w`, a workflow, and `t`, its carrier
w.task_id, w.name, w.spec, w.version, w.created_at, w.created_by, w.updated_at, w.updated_by, t.paused, t.next_fire_at

-- name: get_workflow
-- reads one workflow
SELECT
-- include: workflow_columns
FROM workflows w JOIN tasks t ON t.id = w.task_id
WHERE w.namespace = $1 AND w.name = $2

-- name: list_workflows
-- reads workflows by name, after `$2`
SELECT
-- include: workflow_columns
FROM workflows w JOIN tasks t ON t.id = w.task_id
WHERE w.namespace = $1 AND w.name > $2
ORDER BY w.name LIMIT $3

-- name: insert_workflow
-- (nothing) → workflow, beside its carrier
INSERT INTO workflows (task_id, namespace, name, spec, created_at, created_by, updated_at, updated_by)
SELECT $1, $2, $3, $4, now.at, $5, now.at, $5 FROM (SELECT dts_now() AS at) AS now

-- name: replace_workflow
-- version n → n + 1: a new definition, for runs that begin from now on
UPDATE workflows SET spec = $3, version = version + 1, updated_at = dts_now(), updated_by = $4
WHERE task_id = $1 AND version = $2

-- name: delete_workflow
-- workflow → (nothing): its runs keep what they began with
DELETE FROM workflows WHERE task_id = $1

-- name: insert_workflow_run
-- (nothing) → begun: the definition and the parameters that a run of the carrier keeps
INSERT INTO workflow_runs (run_id, task_id, namespace, version, spec, parameters)
SELECT $1, w.task_id, w.namespace, w.version, w.spec, coalesce(w.spec -> 'parameters', '{}') || $3::jsonb
FROM workflows w WHERE w.task_id = $2
ON CONFLICT DO NOTHING

-- name: list_workflow_runs
-- reads runs of a carrier, newest first, from below `$2`, as workflow runs
SELECT r.id, t.name AS workflow, wr.version, r.state, r.reason, r.trigger, r.scheduled_for, r.created_at,
       wr.unfolded_at AS started_at, r.finished_at, coalesce(wr.parameters, '{}') AS parameters
FROM (
  SELECT * FROM runs r
  WHERE r.task_id = $1 AND r.id < $2 AND ($4::text IS NULL OR r.state = $4) ORDER BY r.id DESC LIMIT $3
) AS r
JOIN tasks t ON t.id = r.task_id
LEFT JOIN workflow_runs wr ON wr.run_id = r.id
ORDER BY r.id DESC

-- name: get_workflow_run
-- reads one run of a carrier as a workflow run
SELECT r.id, t.name AS workflow, wr.version, r.state, r.reason, r.trigger, r.scheduled_for, r.created_at,
       wr.unfolded_at AS started_at, r.finished_at, coalesce(wr.parameters, '{}') AS parameters
FROM runs r
JOIN tasks t ON t.id = r.task_id
LEFT JOIN workflow_runs wr ON wr.run_id = r.id
WHERE r.id = $1 AND r.namespace = $2 AND t.recurring AND t.spec ->> 'executor' = 'workflow'

-- name: workflow_nodes
-- reads the tasks of a workflow run and where their runs stand
SELECT n.name, n.task_id, r.id AS run_id, r.state, r.reason, r.attempt, r.started_at, r.finished_at
FROM workflow_nodes n JOIN runs r ON r.id = n.node_run_id
WHERE n.run_id = $1
ORDER BY n.position

-- name: due_workflow_runs
-- reads runs of carriers that are due and that nothing blocks, but for `$2`: those to unfold, and those whose tasks have all
-- ended
SELECT r.id
FROM lanes l
CROSS JOIN generate_series(0, 9) AS p(priority)
CROSS JOIN LATERAL (
  SELECT r.id FROM runs r
  WHERE r.state = 'pending' AND r.unmet = 0 AND NOT r.held AND r.gate IS NULL
    AND r.lane = l.lane AND r.priority = p.priority AND r.run_at <= (SELECT dts_now())
    AND r.id <> ALL ($2::uuid[])
  ORDER BY r.run_at, r.id
  LIMIT $1
) AS r
WHERE l.executor = 'workflow'

-- name: lock_workflow_run
-- reads a due run of a carrier, and keeps it from changing until the transaction ends
SELECT r.id, r.task_id, r.namespace, r.created_by, r.traceparent FROM runs r
WHERE r.id = $1 AND r.state = 'pending' AND r.unmet = 0 AND NOT r.held
FOR UPDATE

-- name: begun_workflow_run
-- reads what a run of a carrier began with
SELECT version, spec, parameters, unfolded_at IS NOT NULL AS unfolded FROM workflow_runs WHERE run_id = $1

-- name: insert_workflow_nodes
-- begun → unfolded: the tasks of a workflow run
WITH node AS (
  INSERT INTO workflow_nodes (run_id, position, name, task_id, node_run_id)
  SELECT $1, n.* FROM unnest($2::integer[], $3::text[], $4::uuid[], $5::uuid[]) AS n(position, name, task_id, node_run_id)
)
UPDATE workflow_runs SET unfolded_at = dts_now() WHERE run_id = $1

-- name: await_runs
-- pending → pending: a run waits for edges that are written in the same transaction
UPDATE runs r SET unmet = w.unmet, version = r.version + 1
FROM unnest($1::uuid[], $2::integer[]) AS w(run_id, unmet)
WHERE r.id = w.run_id AND r.state = 'pending'

-- name: forget_edges
-- any → (nothing): what runs waited for, before they wait anew
DELETE FROM run_dependencies d WHERE d.run_id = ANY($1::uuid[])

-- name: conclude_workflow_run
-- pending → completed | failed: a run of a carrier all of whose tasks have ended
WITH lanes_open AS (
  SELECT '{}'::text[] AS lanes
), ended AS (
  UPDATE runs r SET state = $2, reason = $3, finished_at = dts_now(), version = r.version + 1
  WHERE r.id = $1 AND r.state = 'pending'
  RETURNING r.id AS run_id, r.state
), closed AS (
  UPDATE workflow_runs w SET ended = true FROM ended WHERE w.run_id = ended.run_id
),
-- include: settle_dependents
SELECT kind, run_id, state, lane, priority, run_at, seq, traceparent FROM settled

-- name: abandoned_workflow_runs
-- reads workflow runs that were ended from outside
SELECT w.run_id
FROM workflow_runs w
LEFT JOIN runs r ON r.id = w.run_id
WHERE NOT w.ended AND coalesce(r.state IN ('completed', 'failed', 'cancelled', 'skipped', 'dead_letter'), true)
LIMIT $1

-- name: lock_abandoned_runs
-- keeps runs of carriers from being revived until the transaction ends
SELECT r.id FROM runs r WHERE r.id = ANY($1::uuid[]) ORDER BY r.id FOR UPDATE

-- name: left_of_abandoned_runs
-- reads of which of these workflow runs the end still stands, and their tasks' live runs
SELECT w.run_id, w.namespace, ARRAY(
  SELECT n.node_run_id FROM workflow_nodes n JOIN runs live ON live.id = n.node_run_id
  WHERE n.run_id = w.run_id AND live.state IN ('pending', 'queued', 'running')
) AS live
FROM workflow_runs w
LEFT JOIN runs r ON r.id = w.run_id
WHERE w.run_id = ANY($1::uuid[])
  AND coalesce(r.state IN ('completed', 'failed', 'cancelled', 'skipped', 'dead_letter'), true)

-- name: close_workflow_runs
-- open → ended
UPDATE workflow_runs SET ended = true WHERE run_id = ANY($1::uuid[])

-- name: forget_workflow_runs
-- ended → (nothing): up to `$2`, whose runs the history has forgotten, which goes by whole weeks. The newest come first: a
-- week that had to stay is mostly older than the one that went last, and no batch walks through it
WITH due AS MATERIALIZED (
  SELECT w.run_id FROM workflow_runs w
  WHERE w.ended AND w.run_id < dts_first_id_at(date_trunc('week', dts_now() - make_interval(secs => $1), 'UTC'))
    AND NOT EXISTS (SELECT FROM runs r WHERE r.id = w.run_id)
  ORDER BY w.run_id DESC
  LIMIT $2
), gone AS (
  DELETE FROM workflow_runs w USING due WHERE w.run_id = due.run_id AND w.ended
  RETURNING 1
)
SELECT count(*) FROM gone
