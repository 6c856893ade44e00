-- What must hold in every snapshot of a live system, one statement for each way in which it could not. Each returns
-- (subject, detail) of what contradicts it, at most `shown` rows, and looks at live rows and the newest `newest` of
-- history: the cost is the same however long that is. What the system mends by itself counts only after `grace` seconds.

-- fragment: bounds
-- `$1`: how much of the history is looked at; `$2`: seconds that mending may take; `$3`: how many rows are shown
bounds AS MATERIALIZED (
  SELECT $1::integer AS newest, make_interval(secs => $2::float8) AS grace, $3::integer AS shown, dts_now() AS at
)

-- fragment: recent_runs
-- `recent`: the newest runs; needs `bounds`
recent AS MATERIALIZED (
  SELECT r.* FROM runs r ORDER BY r.id DESC LIMIT (SELECT newest FROM bounds)
)

-- fragment: live_runs_of_all
-- `live`: the newest runs of each live state; needs `bounds`
live AS MATERIALIZED (
  (SELECT r.* FROM runs r WHERE r.state = 'running' LIMIT (SELECT newest FROM bounds))
  UNION ALL
  (SELECT r.* FROM runs r WHERE r.state = 'queued' LIMIT (SELECT newest FROM bounds))
  UNION ALL
  (SELECT r.* FROM runs r
   WHERE r.state = 'pending' AND r.unmet = 0 AND NOT r.held AND r.gate IS NULL LIMIT (SELECT newest FROM bounds))
  UNION ALL
  (SELECT r.* FROM runs r
   WHERE r.state = 'pending' AND r.unmet = 0 AND NOT r.held AND r.gate IS NOT NULL LIMIT (SELECT newest FROM bounds))
  UNION ALL
  (SELECT r.* FROM runs r WHERE r.state = 'pending' AND (r.unmet > 0 OR r.held) LIMIT (SELECT newest FROM bounds))
)

-- name: invariant_task_without_run
-- reads one-off tasks that have no run: acknowledged work that nothing will ever execute
WITH
-- include: bounds
SELECT t.id::text AS subject, 'task ' || t.name || ' was accepted at ' || t.created_at || ' and has no run' AS detail
FROM bounds, (SELECT o.* FROM tasks_once o ORDER BY o.id DESC LIMIT (SELECT newest FROM bounds)) AS t
WHERE NOT EXISTS (SELECT FROM runs r WHERE r.task_id = t.id)
LIMIT (SELECT shown FROM bounds)

-- name: invariant_run_without_task
-- reads live runs whose definition is gone: no claim can find their command
WITH
-- include: bounds
,
-- include: live_runs_of_all
SELECT live.id::text AS subject, live.state || ' run of the task ' || live.task_id || ', which does not exist' AS detail
FROM live
WHERE NOT EXISTS (SELECT FROM tasks t WHERE t.id = live.task_id)
LIMIT (SELECT shown FROM bounds)

-- name: invariant_lane_unknown
-- reads waiting runs in a lane that no leader and no worker knows
WITH
-- include: bounds
,
-- include: live_runs_of_all
SELECT live.id::text AS subject, live.state || ' run in the lane ' || live.lane || ', which is not listed' AS detail
FROM live
WHERE NOT EXISTS (SELECT FROM lanes l WHERE l.lane = live.lane)
LIMIT (SELECT shown FROM bounds)

-- name: invariant_attempt_unrecorded
-- reads runs with an execution that left no record, or with a record of one that never was
WITH
-- include: bounds
,
-- include: recent_runs
SELECT r.id::text AS subject,
       r.state || ' run counts ' || r.attempt || ' attempts, ' || ended.n || ' are recorded as ended' AS detail
FROM recent r
CROSS JOIN LATERAL (SELECT count(*) AS n FROM attempts a WHERE a.run_id = r.id) AS ended
WHERE ended.n <> r.attempt - CASE r.state WHEN 'running' THEN 1 ELSE 0 END
LIMIT (SELECT shown FROM bounds)

-- name: invariant_two_outcomes
-- reads runs of which two attempts were accepted as completed, or one and the run is something else
WITH
-- include: bounds
,
-- include: recent_runs
SELECT r.id::text AS subject, r.state || ' run has ' || completed.n || ' completed attempts' AS detail
FROM recent r
CROSS JOIN LATERAL (
  SELECT count(*) AS n FROM attempts a WHERE a.run_id = r.id AND a.outcome = 'completed'
) AS completed
WHERE completed.n <> CASE r.state WHEN 'completed' THEN 1 ELSE 0 END
  AND NOT (completed.n = 0 AND EXISTS (SELECT FROM workflow_runs w WHERE w.run_id = r.id))  -- its tasks have the attempts
LIMIT (SELECT shown FROM bounds)

-- name: invariant_fences_out_of_order
-- reads attempts whose fence is not above the fence of the attempt before
WITH
-- include: bounds
,
-- include: recent_runs
, fenced AS (
  SELECT a.run_id, a.attempt, a.fence FROM recent r CROSS JOIN LATERAL (SELECT * FROM attempts a WHERE a.run_id = r.id) AS a
  UNION ALL
  SELECT r.id, r.attempt, r.fence FROM recent r WHERE r.state = 'running'
), pairs AS (
  SELECT run_id, attempt, fence, lag(fence) OVER (PARTITION BY run_id ORDER BY attempt) AS before FROM fenced
)
SELECT run_id::text AS subject, 'attempt ' || attempt || ' has the fence ' || fence || ', the one before has ' || before AS detail
FROM pairs WHERE fence <= before
LIMIT (SELECT shown FROM bounds)

-- name: invariant_fence_reused
-- reads fences that two attempts bear
WITH
-- include: bounds
,
-- include: recent_runs
, fenced AS (
  SELECT a.run_id, a.fence FROM recent r CROSS JOIN LATERAL (SELECT * FROM attempts a WHERE a.run_id = r.id) AS a
  UNION ALL
  SELECT r.id, r.fence FROM recent r WHERE r.state = 'running'
)
SELECT fence::text AS subject, 'borne by ' || count(*) || ' attempts, of the runs ' || string_agg(run_id::text, ', ') AS detail
FROM fenced GROUP BY fence HAVING count(*) > 1
LIMIT (SELECT shown FROM bounds)

-- name: invariant_fence_of_the_future
-- reads runs whose fence the sequence has not given out: it was set back, and fences will repeat
WITH
-- include: bounds
,
-- include: recent_runs
SELECT r.id::text AS subject, 'fence ' || r.fence || ' is beyond the sequence, which stands at ' || s.last_value AS detail
FROM recent r, fence_seq s
WHERE r.fence > s.last_value
LIMIT (SELECT shown FROM bounds)

-- name: invariant_fire_run_twice
-- reads planned fires that have more than one run
WITH
-- include: bounds
,
-- include: recent_runs
SELECT r.task_id::text AS subject, 'planned for ' || r.scheduled_for || ', ' || count(*) || ' runs' AS detail
FROM recent r
WHERE r.trigger = 'schedule'
GROUP BY r.task_id, r.scheduled_for HAVING count(*) > 1
LIMIT (SELECT shown FROM bounds)

-- name: invariant_run_without_fire
-- reads scheduled runs whose fire is recorded for another run, or not at all
WITH
-- include: bounds
,
-- include: recent_runs
SELECT r.id::text AS subject, 'planned for ' || r.scheduled_for || '; the fire names ' || coalesce(f.run_id::text, 'no run') AS detail
FROM bounds, recent r
LEFT JOIN fires f ON f.task_id = r.task_id AND f.scheduled_for = r.scheduled_for
WHERE r.trigger = 'schedule' AND r.scheduled_for > bounds.at - interval '7 days' AND f.run_id IS DISTINCT FROM r.id
LIMIT (SELECT shown FROM bounds)

-- name: invariant_fire_without_run
-- reads fires that are said to have made a run which is not there
WITH
-- include: bounds
, made AS MATERIALIZED (
  SELECT f.* FROM tasks_recurring t
  CROSS JOIN LATERAL (
    SELECT * FROM fires f WHERE f.task_id = t.id AND f.scheduled_for > (SELECT at FROM bounds) - interval '7 days'
    ORDER BY f.scheduled_for DESC LIMIT 100
  ) AS f
  LIMIT (SELECT newest FROM bounds)
)
SELECT f.task_id::text AS subject, f.disposition || ' for ' || f.scheduled_for || ': run '
       || coalesce(f.run_id::text, '(none)') || ' does not exist' AS detail
FROM made f, bounds
WHERE f.disposition IN ('fired', 'late') AND NOT EXISTS (SELECT FROM runs r WHERE r.id = f.run_id AND r.task_id = f.task_id)
LIMIT (SELECT shown FROM bounds)

-- name: invariant_epoch_of_the_future
-- reads fires that a term has written which has not come yet
WITH
-- include: bounds
, latest AS MATERIALIZED (
  SELECT f.* FROM tasks_recurring t
  CROSS JOIN LATERAL (SELECT * FROM fires f WHERE f.task_id = t.id ORDER BY f.scheduled_for DESC LIMIT 10) AS f
  LIMIT (SELECT newest FROM bounds)
)
SELECT f.task_id::text AS subject, 'the fire of ' || f.scheduled_for || ' was decided in epoch ' || f.epoch || ', this is ' || l.epoch
       AS detail
FROM latest f, leadership l, bounds
WHERE f.epoch > l.epoch
LIMIT (SELECT shown FROM bounds)

-- name: invariant_deposed_leader_wrote
-- reads fires that an older term has written although a newer one had begun `grace` seconds before
WITH
-- include: bounds
, latest AS MATERIALIZED (
  SELECT f.* FROM tasks_recurring t
  CROSS JOIN LATERAL (SELECT * FROM fires f WHERE f.task_id = t.id ORDER BY f.scheduled_for DESC LIMIT 10) AS f
  LIMIT (SELECT newest FROM bounds)
)
SELECT f.task_id::text AS subject,
       'the fire of ' || f.scheduled_for || ' was decided at ' || f.decided_at || ' in epoch ' || f.epoch || '; epoch ' || l.epoch
       || ' began at ' || l.acquired_at AS detail
FROM latest f, leadership l, bounds
WHERE f.epoch < l.epoch AND f.decided_at > l.acquired_at + bounds.grace
LIMIT (SELECT shown FROM bounds)

-- name: invariant_attempts_overlap
-- reads attempts that began before the one before had ended (by more than clocks of different machines may differ)
WITH
-- include: bounds
,
-- include: recent_runs
, spans AS (
  SELECT a.run_id, a.attempt, a.started_at, a.finished_at
  FROM recent r CROSS JOIN LATERAL (SELECT * FROM attempts a WHERE a.run_id = r.id) AS a
  UNION ALL
  SELECT r.id, r.attempt, r.started_at, NULL FROM recent r WHERE r.state = 'running'
), pairs AS (
  SELECT run_id, attempt, started_at, lag(finished_at) OVER (PARTITION BY run_id ORDER BY attempt) AS ended_before FROM spans
)
SELECT run_id::text AS subject, 'attempt ' || attempt || ' began at ' || started_at || ', the one before ended at ' || ended_before
       AS detail
FROM pairs WHERE started_at < ended_before - interval '5 seconds'
LIMIT (SELECT shown FROM bounds)

-- name: invariant_runs_of_the_dead
-- reads runs that execute, on paper, on a worker that has ended or does not exist: nobody will ever report them
WITH
-- include: bounds
SELECT r.id::text AS subject,
       'executes on the worker ' || r.worker_id || ', which ' || coalesce('is ' || w.state || ' since ' || w.ended_at, 'does not exist')
       AS detail
FROM bounds, (SELECT * FROM runs r WHERE r.state = 'running' LIMIT (SELECT newest FROM bounds)) AS r
LEFT JOIN workers w ON w.id = r.worker_id
WHERE w.id IS NULL OR (w.state IN ('dead', 'left') AND w.ended_at < (SELECT at - grace FROM bounds))
LIMIT (SELECT shown FROM bounds)

-- name: invariant_lease_of_the_dead
-- reads workers that have ended and still can renew, and live ones that cannot
WITH
-- include: bounds
SELECT w.id::text AS subject, 'an ended worker still has a lease, last renewed at ' || l.renewed_at AS detail
FROM worker_leases l JOIN workers w ON w.id = l.worker_id
WHERE w.state IN ('dead', 'left')
UNION ALL
SELECT w.id::text, 'a ' || w.state || ' worker has no lease'
FROM workers w
WHERE w.state IN ('live', 'draining') AND NOT EXISTS (SELECT FROM worker_leases l WHERE l.worker_id = w.id)
LIMIT (SELECT shown FROM bounds)

-- name: invariant_worker_not_heard
-- reads live workers that nobody has heard of for so long that they should have been reaped
WITH
-- include: bounds
SELECT w.id::text AS subject, 'a ' || w.state || ' worker was last heard of at ' || l.renewed_at || ', while a leader leads' AS detail
FROM bounds, leadership led, workers w JOIN worker_leases l ON l.worker_id = w.id
WHERE w.state IN ('live', 'draining') AND l.renewed_at < bounds.at - greatest(2 * bounds.grace, 2 * make_interval(secs => w.lease))
  AND led.holder IS NOT NULL AND led.renewed_at > bounds.at - bounds.grace AND led.acquired_at < bounds.at - 2 * bounds.grace
LIMIT (SELECT shown FROM bounds)

-- name: invariant_budget_overcharged
-- reads runs that were charged more failures or losses than their attempts record
WITH
-- include: bounds
,
-- include: recent_runs
SELECT r.id::text AS subject,
       r.failures || ' failures and ' || r.losses || ' losses charged, ' || spent.failed || ' and ' || spent.lost || ' recorded' AS detail
FROM recent r
CROSS JOIN LATERAL (
  SELECT count(*) FILTER (WHERE a.outcome = 'failed') AS failed, count(*) FILTER (WHERE a.outcome = 'lost') AS lost
  FROM attempts a WHERE a.run_id = r.id
) AS spent
WHERE r.failures > spent.failed OR r.losses > spent.lost
LIMIT (SELECT shown FROM bounds)

-- name: invariant_budget_exhausted
-- reads live runs that have used up a budget and should be dead letters; `$4`: the losses that a run may cost
WITH
-- include: bounds
,
-- include: live_runs_of_all
SELECT live.id::text AS subject,
       live.state || ' run with ' || live.losses || ' losses' AS detail
FROM live
WHERE live.losses >= $4::integer
LIMIT (SELECT shown FROM bounds)

-- name: invariant_output_after_the_end
-- reads runs of which something was still printed after they had ended: a process has outlived its attempt. What the
-- worker of a lost attempt hands in later tells when it was handed in, not when it was printed
WITH
-- include: bounds
,
-- include: recent_runs
SELECT r.id::text AS subject, r.state || ' at ' || r.finished_at || ', output written at ' || late.written_at AS detail
FROM recent r
CROSS JOIN LATERAL (
  SELECT o.written_at FROM output_chunks o WHERE o.run_id = r.id AND o.attempt = r.attempt ORDER BY o.position DESC LIMIT 1
) AS late
CROSS JOIN LATERAL (SELECT a.outcome FROM attempts a WHERE a.run_id = r.id AND a.attempt = r.attempt) AS last
WHERE r.finished_at IS NOT NULL AND last.outcome <> 'lost' AND late.written_at > r.finished_at
LIMIT (SELECT shown FROM bounds)

-- name: invariant_fire_overdue
-- reads recurring tasks whose fire has come and was not decided, while a leader leads
WITH
-- include: bounds
SELECT t.id::text AS subject, 'task ' || t.name || ' was to fire at ' || t.next_fire_at AS detail
FROM bounds, leadership l, tasks_recurring t
WHERE t.next_fire_at < bounds.at - bounds.grace AND NOT t.paused AND t.deleted_at IS NULL
  AND l.holder IS NOT NULL AND l.renewed_at > bounds.at - bounds.grace AND l.acquired_at < bounds.at - bounds.grace
  AND t.updated_at < bounds.at - bounds.grace
LIMIT (SELECT shown FROM bounds)

-- name: invariant_cursor_behind
-- reads recurring tasks that could fire again what was decided: the cursor stands before a recorded fire, or after the next
WITH
-- include: bounds
SELECT t.id::text AS subject,
       'the cursor of ' || t.name || ' is ' || t.fire_cursor || ', the newest fire ' || coalesce(newest.scheduled_for::text, '(none)')
       || ', the next ' || coalesce(t.next_fire_at::text, '(none)') AS detail
FROM (SELECT * FROM tasks_recurring r ORDER BY r.id DESC LIMIT (SELECT newest FROM bounds)) AS t
LEFT JOIN LATERAL (
  SELECT coalesce(f.until, f.scheduled_for) AS scheduled_for FROM fires f WHERE f.task_id = t.id ORDER BY f.scheduled_for DESC LIMIT 1
) AS newest ON true
WHERE t.deleted_at IS NULL AND (newest.scheduled_for > t.fire_cursor OR t.next_fire_at <= t.fire_cursor)
LIMIT (SELECT shown FROM bounds)

-- name: invariant_fire_unexplained
-- reads fires whose disposition contradicts what they carry: a missed one that made a run, a fired one that did not
WITH
-- include: bounds
, latest AS MATERIALIZED (
  SELECT f.* FROM tasks_recurring t
  CROSS JOIN LATERAL (SELECT * FROM fires f WHERE f.task_id = t.id ORDER BY f.scheduled_for DESC LIMIT 100) AS f
  LIMIT (SELECT newest FROM bounds)
)
SELECT f.task_id::text AS subject, f.disposition || ' for ' || f.scheduled_for || ', run ' || coalesce(f.run_id::text, '(none)') AS detail
FROM latest f
WHERE (f.disposition IN ('fired', 'late')) <> (f.run_id IS NOT NULL) AND f.disposition NOT LIKE 'skipped:%' AND f.disposition <> 'coalesced'
LIMIT (SELECT shown FROM bounds)

-- name: invariant_outside_partitions
-- reads history that no week covers: retention never drops it, so it grows without bound
WITH
-- include: bounds
SELECT 'runs_default' AS subject, 'a run is in no week: ' || id AS detail FROM (SELECT id FROM runs_default LIMIT 1) AS r
UNION ALL
SELECT 'tasks_once_default', 'a task is in no week: ' || id FROM (SELECT id FROM tasks_once_default LIMIT 1) AS t
UNION ALL
SELECT 'attempts_default', 'an attempt is in no week: ' || run_id FROM (SELECT run_id FROM attempts_default LIMIT 1) AS a
UNION ALL
SELECT 'fires_default', 'a fire is in no week: ' || scheduled_for FROM bounds,
     (SELECT scheduled_for FROM fires_default ORDER BY scheduled_for DESC LIMIT 1) AS f
-- A missed stretch may begin, and a backfill may reach, before the first week.
WHERE f.scheduled_for > greatest(bounds.at - interval '7 days',
                                 (SELECT date_trunc('week', created_at, 'UTC') FROM installation))
UNION ALL
SELECT 'output_chunks_default', 'output is in no week: ' || run_id FROM (SELECT run_id FROM output_chunks_default LIMIT 1) AS o
LIMIT (SELECT shown FROM bounds)

-- name: invariant_outputs_too_large
-- reads runs that keep more than they may; `$4`: the bytes of a run's outputs, `$5`: of its last output
WITH
-- include: bounds
,
-- include: recent_runs
SELECT r.id::text AS subject,
       'keeps ' || coalesce(octet_length(r.outputs::text), 0) || ' bytes of outputs and ' || coalesce(octet_length(r.output_tail), 0)
       || ' of its last output' AS detail
FROM recent r
WHERE octet_length(r.outputs::text) > $4::integer OR octet_length(r.output_tail) > $5::integer
LIMIT (SELECT shown FROM bounds)

-- name: invariant_waits_for_the_ended
-- reads runs that wait for one that has ended long ago, or whose count of unmet conditions is wrong
WITH
-- include: bounds
, blocked AS MATERIALIZED (
  SELECT r.* FROM runs r WHERE r.state = 'pending' AND (r.unmet > 0 OR r.held) LIMIT (SELECT newest FROM bounds)
)
SELECT b.id::text AS subject, 'waits for the run ' || u.id || ', ' || u.state || ' since ' || u.finished_at AS detail
FROM bounds, blocked b
JOIN run_dependencies d ON d.run_id = b.id AND d.state = 'waiting'
JOIN runs u ON u.id = d.upstream_run_id AND u.finished_at < (SELECT at - grace FROM bounds)
UNION ALL
SELECT b.id::text, 'counts ' || b.unmet || ' unmet conditions, its edges say ' || edges.waiting
FROM blocked b
CROSS JOIN LATERAL (SELECT count(*) AS waiting FROM run_dependencies d WHERE d.run_id = b.id AND d.state = 'waiting') AS edges
WHERE b.unmet <> edges.waiting
LIMIT (SELECT shown FROM bounds)

-- name: invariant_not_promoted
-- reads due runs that nobody queues although nothing waits in their lane and a leader leads
WITH
-- include: bounds
SELECT r.id::text AS subject, 'due since ' || r.run_at || ' in the empty lane ' || r.lane AS detail
FROM bounds, leadership led, lanes l
CROSS JOIN generate_series(0, 9) AS p(priority)
CROSS JOIN LATERAL (
  SELECT r.* FROM runs r
  WHERE r.state = 'pending' AND r.unmet = 0 AND NOT r.held AND r.gate IS NULL
    AND r.lane = l.lane AND r.priority = p.priority
  ORDER BY r.run_at LIMIT 1
) AS r
WHERE r.run_at < bounds.at - bounds.grace
  AND led.holder IS NOT NULL AND led.renewed_at > bounds.at - bounds.grace AND led.acquired_at < bounds.at - bounds.grace
  AND l.executor <> 'workflow'
  AND NOT EXISTS (SELECT FROM runs q WHERE q.state = 'queued' AND q.lane = l.lane)
  AND NOT EXISTS (SELECT FROM queues s WHERE s.namespace = l.namespace AND s.name = l.queue
                  AND (s.paused OR s.updated_at > bounds.at - bounds.grace))
LIMIT (SELECT shown FROM bounds)

-- name: invariant_not_claimed
-- reads runs that have stood queued for long although a live worker of their queue has free slots
WITH
-- include: bounds
SELECT r.id::text AS subject, 'queued since ' || r.queued_at || ' in the lane ' || r.lane || '; the worker ' || idle.id || ' is idle' AS detail
FROM bounds, lanes l
CROSS JOIN LATERAL (
  SELECT r.* FROM runs r WHERE r.state = 'queued' AND r.lane = l.lane ORDER BY r.priority DESC, r.run_at, r.id LIMIT 1
) AS r
CROSS JOIN LATERAL (
  SELECT w.id FROM workers w
  WHERE w.state = 'live' AND l.queue = ANY (w.queues) AND l.executor = ANY (w.executors) AND w.labels @> l.requires
    AND w.registered_at < bounds.at - bounds.grace AND NOT w.drain_requested
    AND NOT EXISTS (SELECT FROM runs busy WHERE busy.worker_id = w.id AND busy.state = 'running')
  LIMIT 1
) AS idle
WHERE r.queued_at < bounds.at - bounds.grace
LIMIT (SELECT shown FROM bounds)

-- name: invariant_dead_letter_torn
-- reads dead-lettered runs without a dead letter, and open dead letters of runs that are something else. A discarded
-- letter goes before its run does, so only runs of the last day must have one; it was written when the run ended
WITH
-- include: bounds
, buried AS MATERIALIZED (
  SELECT r.id, r.finished_at FROM bounds, runs r
  WHERE r.state = 'dead_letter' AND r.finished_at > bounds.at - interval '1 day'
  ORDER BY r.id DESC LIMIT (SELECT newest FROM bounds)
), letters AS MATERIALIZED (
  SELECT d.run_id, d.waits FROM namespaces n
  CROSS JOIN LATERAL (
    SELECT d.* FROM dead_letter_tasks d WHERE d.namespace = n.name AND d.state = 'open'
    ORDER BY d.id DESC LIMIT (SELECT newest FROM bounds)
  ) AS d
)
SELECT b.id::text AS subject, 'a dead_letter run without a dead letter' AS detail
FROM buried b
WHERE NOT EXISTS (SELECT FROM dead_letter_tasks d WHERE d.run_id = b.id AND d.state = 'open')
  AND NOT EXISTS (
    SELECT FROM dead_letter_tasks d
    WHERE d.id >= dts_first_id_at(b.finished_at - interval '1 minute') AND d.id < dts_first_id_at(b.finished_at + interval '1 minute')
      AND d.run_id = b.id
  )
UNION ALL
SELECT letters.run_id::text, 'an open dead letter of a run that is ' || coalesce(r.state, 'gone')
FROM letters LEFT JOIN runs r ON r.id = letters.run_id
WHERE r.state IS DISTINCT FROM 'dead_letter'
  AND NOT coalesce(letters.waits AND r.state IN ('skipped', 'failed'), false)  -- open again, its canaries did not complete
LIMIT (SELECT shown FROM bounds)

-- name: invariant_end_torn
-- reads ended runs whose last attempt tells of another end
WITH
-- include: bounds
,
-- include: recent_runs
SELECT r.id::text AS subject, r.state || ' run, its last attempt ' || last.outcome AS detail
FROM recent r
CROSS JOIN LATERAL (SELECT a.outcome FROM attempts a WHERE a.run_id = r.id AND a.attempt = r.attempt) AS last
WHERE CASE r.state
        WHEN 'completed' THEN last.outcome <> 'completed'
        WHEN 'failed' THEN r.reason IS DISTINCT FROM 'schedule_timeout' AND last.outcome NOT IN ('failed', 'lost')
        WHEN 'dead_letter' THEN last.outcome NOT IN ('failed', 'lost')
        ELSE false END
LIMIT (SELECT shown FROM bounds)
