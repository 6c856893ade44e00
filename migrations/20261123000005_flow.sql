-- migrate:up

-- What runs share by a key: how many may be queued or running at once, how many may start in a while, whose turn it is.
-- One row for each rule that work was ever put under; a run that is under none has no gate, and costs nothing more.
CREATE TABLE gates (
  gate            text PRIMARY KEY,
  namespace       text NOT NULL,
  concurrency_key text,
  max_runs        integer CHECK (max_runs > 0),
  on_conflict     text CHECK (on_conflict IN ('queue', 'cancel_newest', 'cancel_running')),
  rate_key        text,
  rate_n          integer CHECK (rate_n > 0),
  rate_per        float8 CHECK (rate_per > 0),
  fairness_key    text,
  created_at      timestamptz NOT NULL DEFAULT dts_now(),
  CHECK ((concurrency_key IS NULL) = (max_runs IS NULL) AND (concurrency_key IS NULL) = (on_conflict IS NULL)),
  CHECK ((rate_key IS NULL) = (rate_n IS NULL) AND (rate_key IS NULL) = (rate_per IS NULL))
);
CREATE INDEX gates_concurrency ON gates (namespace, concurrency_key) WHERE concurrency_key IS NOT NULL;
CREATE INDEX gates_rate        ON gates (namespace, rate_key) WHERE rate_key IS NOT NULL;
CREATE INDEX gates_fairness    ON gates (namespace, fairness_key) WHERE fairness_key IS NOT NULL;

ALTER TABLE runs ADD COLUMN gate text;

-- Runs behind a gate stand in an index of their own, so that those which wait there are never in the way of others.
DROP INDEX runs_pending;
CREATE INDEX runs_pending ON runs (lane, priority, run_at, id)
  WHERE state = 'pending' AND unmet = 0 AND NOT held AND gate IS NULL;
CREATE INDEX runs_gated ON runs (lane, gate, priority, run_at, id)
  WHERE state = 'pending' AND unmet = 0 AND NOT held AND gate IS NOT NULL;
CREATE INDEX runs_admitted ON runs (gate, state) WHERE gate IS NOT NULL AND state IN ('queued', 'running');
CREATE INDEX runs_admitted_lane ON runs (lane) WHERE gate IS NOT NULL AND state = 'queued';
CREATE INDEX runs_started ON runs (gate, started_at) WHERE gate IS NOT NULL AND started_at IS NOT NULL;

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

-- migrate:down
-- Forward only: restore a backup instead.
