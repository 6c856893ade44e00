-- migrate:up

-- For how many seconds after its end a run keeps what its command left; NULL: as long as its week stays, or nothing is left.
-- A claim sets it, so plain runs cost nothing and stand in no index.
ALTER TABLE runs ADD COLUMN kept_for double precision;
CREATE INDEX runs_kept ON runs (kept_for, finished_at) WHERE kept_for IS NOT NULL AND finished_at IS NOT NULL;

-- migrate:down
-- Forward only: restore a backup instead.
