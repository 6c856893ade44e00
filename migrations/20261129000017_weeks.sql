-- migrate:up

-- Keys of recurring tasks, which name no run, go when these are forgotten.
CREATE INDEX idempotency_keys_recurring ON idempotency_keys (task_id) WHERE run_id IS NULL;

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
