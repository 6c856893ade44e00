-- migrate:up

-- Reads every run, while all work goes on.
ALTER TABLE runs VALIDATE CONSTRAINT runs_consistent;

ALTER TABLE runs
  DROP CONSTRAINT runs_priority_check,
  DROP CONSTRAINT runs_state_check,
  DROP CONSTRAINT runs_trigger_check,
  DROP CONSTRAINT runs_unmet_check,
  DROP CONSTRAINT runs_check,
  DROP CONSTRAINT runs_check1,
  DROP CONSTRAINT runs_check2;

-- migrate:down
-- Forward only: restore a backup instead.
