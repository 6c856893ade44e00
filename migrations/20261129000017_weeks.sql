-- migrate:up

-- What the leader asks for what is to be forgotten, a bounded number at a time. Those that create a task under a key, and those
-- who fire, take these tables in this order, too.
CREATE INDEX idempotency_keys_recurring ON idempotency_keys (task_id) WHERE run_id IS NULL;
CREATE INDEX tasks_recurring_deleted ON tasks_recurring (deleted_at) WHERE deleted_at IS NOT NULL;
CREATE INDEX fires_default_decided ON fires_default (decided_at);
CREATE INDEX dead_letter_decided ON dead_letter_tasks (decided_at) WHERE state <> 'open';
CREATE INDEX dead_letter_undecided ON dead_letter_tasks (created_at) WHERE state = 'open';

-- The moment that a UUIDv7 carries: what `dts_first_id_at` is the inverse of.
CREATE FUNCTION dts_time_of_id(id uuid) RETURNS timestamptz LANGUAGE sql IMMUTABLE AS $$
  SELECT to_timestamp(('x' || left(replace(id::text, '-', ''), 12))::bit(48)::bigint / 1000.0)
$$;

-- Rows may stand in the default partitions already (nobody led while the weeks made ahead ran out), and PostgreSQL makes no
-- partition of what the default one holds: so a week is made apart, takes its rows from there, and is attached with them.
CREATE OR REPLACE FUNCTION dts_create_week(moment timestamptz) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  week_start timestamptz := date_trunc('week', moment, 'UTC');
  week_end   timestamptz := week_start + interval '7 days';
  first_id   text := dts_first_id_at(week_start);
  next_id    text := dts_first_id_at(week_end);
  suffix     text := to_char(week_start AT TIME ZONE 'UTC', 'YYYYMMDD');
  parent     text;
  key        text;
  low        text;
  high       text;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtext('dts_create_week'));
  FOR parent, key, low, high IN VALUES
    ('tasks_once',       'id',            first_id,         next_id),
    ('runs',             'id',            first_id,         next_id),
    ('attempts',         'run_id',        first_id,         next_id),
    ('run_dependencies', 'run_id',        first_id,         next_id),
    ('output_chunks',    'run_id',        first_id,         next_id),
    ('fires',            'scheduled_for', week_start::text, week_end::text)
  LOOP
    CONTINUE WHEN to_regclass(parent || '_' || suffix) IS NOT NULL;
    EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', parent || '_' || suffix, parent);
    EXECUTE format('LOCK TABLE %I IN ACCESS EXCLUSIVE MODE', parent || '_default');
    EXECUTE format('WITH moved AS (DELETE FROM %I WHERE %I >= %L AND %I < %L RETURNING *) INSERT INTO %I SELECT * FROM moved',
                   parent || '_default', key, low, key, high, parent || '_' || suffix);
    EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', parent, parent || '_' || suffix, low, high);
  END LOOP;
  -- Queues churn: every row is dead twice before it rests, so vacuum by count, not by a share of the history.
  EXECUTE format('ALTER TABLE %I SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000,'
                 ' autovacuum_analyze_scale_factor = 0.05)', 'runs_' || suffix);
END
$$;

CREATE OR REPLACE FUNCTION dts_week_kept_for(week_start timestamptz) RETURNS text LANGUAGE plpgsql STABLE AS $$
DECLARE
  first uuid := dts_first_id_at(week_start);
  next  uuid := dts_first_id_at(week_start + interval '7 days');
BEGIN
  -- Runs may be live for ever (paused, waiting, far in the future), and a one-off task may be older than its run.
  IF EXISTS (SELECT FROM runs WHERE id >= first AND id < next AND state = 'running')
     OR EXISTS (SELECT FROM runs WHERE id >= first AND id < next AND state = 'queued')
     OR EXISTS (SELECT FROM runs WHERE id >= first AND id < next AND state = 'pending' AND unmet = 0 AND NOT held AND gate IS NULL)
     OR EXISTS (SELECT FROM runs WHERE id >= first AND id < next AND state = 'pending' AND unmet = 0 AND NOT held AND gate IS NOT NULL)
     OR EXISTS (SELECT FROM runs WHERE id >= first AND id < next AND state = 'pending' AND (unmet > 0 OR held)) THEN
    RETURN 'live runs';
  END IF;
  -- A recurring task is in no week, and one that fires each second has millions of later runs: from task to task, not from run
  -- to run.
  IF EXISTS (
    WITH RECURSIVE later AS (
      (SELECT r.task_id FROM runs r WHERE r.task_id >= first AND r.task_id < next AND r.id >= next ORDER BY r.task_id LIMIT 1)
      UNION ALL
      SELECT (
        SELECT r.task_id FROM runs r
        WHERE r.task_id > later.task_id AND r.task_id < next AND r.id >= next ORDER BY r.task_id LIMIT 1
      )
      FROM later WHERE later.task_id IS NOT NULL
    )
    SELECT FROM later
    WHERE later.task_id IS NOT NULL AND NOT EXISTS (SELECT FROM tasks_recurring t WHERE t.id = later.task_id)
  ) THEN
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

CREATE OR REPLACE FUNCTION dts_detach_week(week_start timestamptz) RETURNS text LANGUAGE plpgsql AS $$
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
  -- Those of recurring tasks, which name no run, are held until the task is forgotten.
  DELETE FROM idempotency_keys k
  WHERE k.task_id >= first AND k.task_id < next
    AND (k.run_id IS NOT NULL OR NOT EXISTS (SELECT FROM tasks_recurring t WHERE t.id = k.task_id));
  FOREACH parent IN ARRAY ARRAY['runs', 'tasks_once', 'run_dependencies', 'attempts', 'output_chunks'] LOOP
    IF to_regclass(parent || '_' || suffix) IS NOT NULL THEN
      EXECUTE format('ALTER TABLE %I DETACH PARTITION %I', parent, parent || '_' || suffix);
    END IF;
  END LOOP;
  RETURN NULL;
END
$$;

-- migrate:down
-- Forward only: restore a backup instead.
