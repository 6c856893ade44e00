-- migrate:up

-- Every statement that writes runs parses their CHECKs anew, so one says, as shortly as it can, what seven said: which state
-- goes with which columns, and what priority, trigger and unmet may be. The next migration proves it and drops the seven.
ALTER TABLE runs ADD CONSTRAINT runs_consistent CHECK (
  CASE
    WHEN worker_id IS NOT NULL THEN state = 'running' AND finished_at IS NULL
    WHEN finished_at IS NOT NULL THEN state = ANY ('{completed,failed,cancelled,skipped,dead_letter}')
    WHEN state = 'queued' THEN unmet = 0 AND NOT held
    ELSE state = 'pending'
  END
  AND unmet >= 0 AND priority BETWEEN 0 AND 9 AND trigger = ANY ('{once,schedule,manual,backfill}')
) NOT VALID;

-- migrate:down
-- Forward only: restore a backup instead.
