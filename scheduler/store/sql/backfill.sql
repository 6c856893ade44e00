-- name: decided_about
-- reads what was decided about a task's planned fires at the moments `$2` (ascending, at least one), and the stretches from the
-- first to the last of them, with the one that reaches into these. What an older schedule had planned in between is left out:
-- a task that fired each second may fire once a day now
SELECT f.scheduled_for, f.disposition, f.run_id, f.until, f.count
FROM (
  SELECT before.* FROM (
    SELECT * FROM fires WHERE task_id = $1 AND scheduled_for < ($2::timestamptz[])[1] ORDER BY scheduled_for DESC LIMIT 1
  ) AS before
  WHERE before.until >= ($2::timestamptz[])[1]
  UNION ALL
  SELECT * FROM fires
  WHERE task_id = $1 AND scheduled_for >= ($2::timestamptz[])[1] AND scheduled_for <= ($2::timestamptz[])[cardinality($2)]
    AND (until IS NOT NULL OR scheduled_for = ANY ($2))
) AS f
ORDER BY f.scheduled_for

-- name: write_backfill
-- (nothing) → pending: runs for fires that have passed, of a task that the transaction has locked; each takes the place of
-- what was decided about its fire before, and what is left of a stretch around it stays
WITH clock AS MATERIALIZED (
  SELECT dts_now() AS at
), made AS MATERIALIZED (
  SELECT * FROM jsonb_to_recordset($2) AS r(id uuid, scheduled_for timestamptz, unmet integer)
), fire AS (
  INSERT INTO fires AS f (task_id, scheduled_for, disposition, run_id, until, count, decided_at, epoch)
  SELECT $1, d.scheduled_for, d.disposition, d.run_id, d.until, d.count, clock.at, leadership.epoch
  FROM clock, leadership, (
    SELECT m.scheduled_for, 'late' AS disposition, m.id AS run_id, NULL::timestamptz AS until, 1 AS count FROM made m
    UNION ALL
    SELECT r.scheduled_for, r.disposition, r.run_id, r.until, r.count
    FROM jsonb_to_recordset($3)
      AS r(scheduled_for timestamptz, disposition text, run_id uuid, until timestamptz, count integer)
  ) AS d
  ON CONFLICT (task_id, scheduled_for) DO UPDATE
  SET disposition = excluded.disposition, run_id = excluded.run_id, until = excluded.until, count = excluded.count,
      decided_at = excluded.decided_at, epoch = excluded.epoch
), run AS (
  INSERT INTO runs (id, task_id, namespace, queue, lane, priority, state, trigger, scheduled_for, run_at, start_before,
                    created_at, created_by, unmet, max_attempts, traceparent, gate)
  SELECT m.id, $1, $4, $5, $6, $7, 'pending', 'backfill', m.scheduled_for, clock.at,
         clock.at + make_interval(secs => $8), clock.at, $9, m.unmet, $10, $11, $12
  FROM made m, clock
)
UPDATE tasks SET occurrences = occurrences + (SELECT count(*) FROM made) WHERE id = $1
