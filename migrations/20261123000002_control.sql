-- migrate:up

-- What overlap rules ask of every fire: the live runs of one recurring task, however long its history.
CREATE INDEX runs_active ON runs (task_id) WHERE trigger <> 'once' AND state IN ('pending', 'queued', 'running');

-- Which Redis (and which state of this database) the lanes were last rebuilt for.
ALTER TABLE installation ADD COLUMN lanes_built_for text;

-- Says why the history of the week that begins at `week_start` must be kept, or NULL.
CREATE FUNCTION dts_week_kept_for(week_start timestamptz) RETURNS text LANGUAGE plpgsql STABLE AS $$
DECLARE
  first uuid := dts_first_id_at(week_start);
  next  uuid := dts_first_id_at(week_start + interval '7 days');
BEGIN
  -- Runs may be live for ever (paused, waiting, far in the future), and a one-off task may be older than its run.
  IF EXISTS (SELECT FROM runs WHERE id >= first AND id < next AND state = 'running')
     OR EXISTS (SELECT FROM runs WHERE id >= first AND id < next AND state = 'queued')
     OR EXISTS (SELECT FROM runs WHERE id >= first AND id < next AND state = 'pending' AND unmet = 0 AND NOT held)
     OR EXISTS (SELECT FROM runs WHERE id >= first AND id < next AND state = 'pending' AND (unmet > 0 OR held)) THEN
    RETURN 'live runs';
  END IF;
  IF EXISTS (SELECT FROM runs WHERE task_id >= first AND task_id < next AND id >= next) THEN
    RETURN 'later runs of its tasks';
  END IF;
  IF EXISTS (SELECT FROM run_dependencies WHERE state = 'waiting' AND upstream_run_id >= first AND upstream_run_id < next) THEN
    RETURN 'runs that wait for its runs';
  END IF;
  IF EXISTS (SELECT FROM dead_letter_tasks WHERE state = 'open' AND run_id >= first AND run_id < next) THEN
    RETURN 'open dead letters';
  END IF;
  RETURN NULL;
END
$$;

-- Takes the week that begins at `week_start` out of the history, or says why it must be kept. The caller sets a short
-- lock_timeout: whoever uses the history meanwhile goes first.
CREATE FUNCTION dts_detach_week(week_start timestamptz) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  first  uuid := dts_first_id_at(week_start);
  next   uuid := dts_first_id_at(week_start + interval '7 days');
  suffix text := to_char(week_start AT TIME ZONE 'UTC', 'YYYYMMDD');
  parent text;
  reason text := dts_week_kept_for(week_start);
BEGIN
  IF reason IS NOT NULL THEN
    RETURN reason;
  END IF;
  FOREACH parent IN ARRAY ARRAY['runs', 'tasks_once', 'run_dependencies', 'attempts', 'output_chunks'] LOOP
    IF to_regclass(parent || '_' || suffix) IS NOT NULL THEN
      EXECUTE format('LOCK TABLE %I IN ACCESS EXCLUSIVE MODE', parent || '_' || suffix);
    END IF;
  END LOOP;
  -- Again, now that nobody can revive a run any more.
  reason := dts_week_kept_for(week_start);
  IF reason IS NOT NULL THEN
    RETURN reason;
  END IF;
  DELETE FROM checkpoints WHERE run_id >= first AND run_id < next;
  DELETE FROM idempotency_keys WHERE task_id >= first AND task_id < next;
  FOREACH parent IN ARRAY ARRAY['runs', 'tasks_once', 'run_dependencies', 'attempts', 'output_chunks'] LOOP
    IF to_regclass(parent || '_' || suffix) IS NOT NULL THEN
      EXECUTE format('ALTER TABLE %I DETACH PARTITION %I', parent, parent || '_' || suffix);
    END IF;
  END LOOP;
  RETURN NULL;
END
$$;

-- The same for the week's planned fires, which go by when they were planned for.
CREATE FUNCTION dts_detach_fires(week_start timestamptz) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  name text := 'fires_' || to_char(week_start AT TIME ZONE 'UTC', 'YYYYMMDD');
BEGIN
  IF EXISTS (SELECT FROM run_dependencies WHERE state = 'waiting' AND upstream_run_id IS NULL
             AND upstream_fire >= week_start AND upstream_fire < week_start + interval '7 days') THEN
    RETURN 'runs that wait for its fires';
  END IF;
  IF to_regclass(name) IS NOT NULL THEN
    EXECUTE format('ALTER TABLE fires DETACH PARTITION %I', name);
  END IF;
  RETURN NULL;
END
$$;

-- Drops what was detached; returns the names.
CREATE FUNCTION dts_drop_detached() RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
  name text;
BEGIN
  FOR name IN
    SELECT c.relname FROM pg_class c
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND NOT c.relispartition
      AND c.relname ~ '^(runs|tasks_once|run_dependencies|attempts|output_chunks|fires)_[0-9]{8}$'
  LOOP
    EXECUTE format('DROP TABLE %I', name);
    RETURN NEXT name;
  END LOOP;
END
$$;

-- migrate:down
-- Forward only: restore a backup instead.
