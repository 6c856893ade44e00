-- migrate:up

-- How long the worker's lease lasts, in seconds: who watches it must wait as long as the worker counts on. The default
-- is for workers of a release that did not say so.
ALTER TABLE workers ADD COLUMN lease double precision NOT NULL DEFAULT 15 CHECK (lease > 0);

-- migrate:down
-- Forward only: restore a backup instead.
