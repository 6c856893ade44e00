-- migrate:up

-- A letter whose run stands behind canaries (`replayed`), or stood there in vain and is open again.
ALTER TABLE dead_letter_tasks ADD COLUMN waits boolean NOT NULL DEFAULT false;
CREATE INDEX dead_letter_waits ON dead_letter_tasks (state, run_id) WHERE waits;

-- migrate:down
-- Forward only: restore a backup instead.
