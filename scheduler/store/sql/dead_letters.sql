-- name: list_dead_letters
-- reads open dead letters, newest first, from below `$2`: at most `$3` of the `$4` looked at
WITH walked AS MATERIALIZED (
  SELECT newest.*, row_number() OVER () AS position FROM (
    SELECT d.id, d.queue, d.task_id, d.reason FROM dead_letter_tasks d
    WHERE d.namespace = $1 AND d.state = 'open' AND d.id < $2
    ORDER BY d.id DESC LIMIT $4
  ) AS newest
), chosen AS MATERIALIZED (
  SELECT id, position FROM walked
  WHERE ($5::text IS NULL OR queue = $5) AND ($6::uuid IS NULL OR task_id = $6)
    AND ($7::text IS NULL OR reason = $7 OR split_part(reason, ':', 1) = $7)
  ORDER BY position LIMIT $3
), bottom AS MATERIALIZED (
  SELECT (SELECT id FROM walked ORDER BY position DESC LIMIT 1) AS floor, (SELECT count(*) FROM walked) AS walked
)
SELECT bottom.floor, bottom.walked, page.*
FROM bottom LEFT JOIN (
  SELECT chosen.position, d.id, d.run_id, d.task_id, d.namespace, d.task_name, d.queue, d.reason, d.attempt, d.failures,
         d.losses, d.exit_code, d.output_tail, d.state, d.created_at
  FROM chosen JOIN dead_letter_tasks d ON d.id = chosen.id
) AS page ON true
ORDER BY page.position

-- name: dead_letters_by_id
-- reads dead letters by id, whatever became of them
SELECT d.id, d.run_id, d.task_id, d.state FROM dead_letter_tasks d WHERE d.id = ANY($1::uuid[]) AND d.namespace = $2

-- name: discard_dead_letters
-- open → discarded
UPDATE dead_letter_tasks d SET state = 'discarded', waits = false, decided_at = dts_now(), decided_by = $3
WHERE d.id = ANY($1::uuid[]) AND d.namespace = $2 AND d.state = 'open'
RETURNING d.id

-- name: hold_dead_letters
-- replayed → replayed: letters whose revived runs wait for canaries; the leader looks how that ends
UPDATE dead_letter_tasks d SET waits = true WHERE d.id = ANY($1::uuid[]) AND d.namespace = $2 AND d.state = 'replayed'

-- name: judge_held_letters
-- replayed → open | replayed: letters whose runs wait no more; open again if the wait was in vain (a canary did not
-- complete, or the run's time to start passed meanwhile). Whoever revives the run locks it before its letters, too
WITH gone AS (
  UPDATE dead_letter_tasks d SET waits = false
  WHERE d.waits AND d.state = 'replayed' AND NOT EXISTS (SELECT FROM runs r WHERE r.id = d.run_id)
), seen AS MATERIALIZED (
  SELECT d.id, r.state IN ('skipped', 'failed') AND r.unmet > 0 AS in_vain
  FROM dead_letter_tasks d JOIN runs r ON r.id = d.run_id
  WHERE d.waits AND d.state = 'replayed' AND (r.state <> 'pending' OR r.unmet = 0)
  ORDER BY r.id
  LIMIT $1
  FOR SHARE OF r
)
UPDATE dead_letter_tasks d
SET waits      = seen.in_vain,
    state      = CASE WHEN seen.in_vain THEN 'open' ELSE d.state END,
    decided_at = CASE WHEN seen.in_vain THEN NULL ELSE d.decided_at END,
    decided_by = CASE WHEN seen.in_vain THEN NULL ELSE d.decided_by END
FROM seen
WHERE d.id = seen.id AND d.waits AND d.state = 'replayed'
RETURNING d.id, seen.in_vain
