-- name: explain_run
-- reads all that can keep a run from running: its own state, its task, queue and lane, the workers, the leader
SELECT r.id, r.state, r.reason, r.run_at, r.unmet, r.held, r.attempt, r.priority, r.queue, r.lane, r.cancel_requested,
       r.worker_id, r.queued_at, r.scheduled_for, r.start_before,
       t.name AS task_name, t.paused AS task_paused, t.spec,
       now.at AS now,
       EXISTS (SELECT FROM queues q WHERE q.namespace = r.namespace AND q.name = r.queue AND q.paused) AS queue_paused,
       CASE WHEN r.state IN ('pending', 'queued') THEN (
         SELECT count(*) FROM (
           SELECT FROM runs o WHERE o.state = 'queued' AND o.lane = r.lane
             AND (r.state = 'pending' OR (o.priority, r.run_at, r.id) > (r.priority, o.run_at, o.id))
           LIMIT 10000
         ) AS ahead
       ) ELSE 0 END AS ahead,
       extract(epoch FROM now.at - leader.renewed_at)::float8 AS leader_silent, leader.holder AS leader_holder
FROM runs r
JOIN tasks t ON t.id = r.task_id
CROSS JOIN (SELECT dts_now() AS at) AS now
CROSS JOIN leadership AS leader
WHERE r.id = $1 AND r.namespace = $2

-- name: explain_dependencies
-- reads the conditions that a run still waits for
SELECT d.position, d.upstream_task_id, d.upstream_run_id, d.upstream_fire, d.condition,
       t.name AS task_name, u.state AS upstream_state
FROM run_dependencies d
LEFT JOIN tasks t ON t.id = d.upstream_task_id
LEFT JOIN runs u ON u.id = d.upstream_run_id
WHERE d.run_id = $1 AND d.state = 'waiting'
ORDER BY d.position

-- name: explain_workers
-- reads the workers that are there, and how many of their slots are taken
SELECT w.id, w.queues, w.executors, w.labels, w.slots, w.state,
       (SELECT count(*) FROM runs r WHERE r.worker_id = w.id AND r.state = 'running')::integer AS running
FROM workers w WHERE w.state IN ('live', 'draining')
