-- migrate:up

-- PostgreSQL's time plus an offset that tests set (ALTER DATABASE … SET dts.clock_offset = '1 hour').
CREATE FUNCTION dts_now() RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT statement_timestamp() + coalesce(nullif(current_setting('dts.clock_offset', true), '')::interval, '0'::interval)
$$;

CREATE TABLE namespaces (
  name        text PRIMARY KEY CHECK (name ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
  max_pending bigint CHECK (max_pending > 0),
  created_at  timestamptz NOT NULL DEFAULT dts_now(),
  created_by  text NOT NULL
);
INSERT INTO namespaces (name, created_by) VALUES ('default', 'migration');

-- Identifies this database to Redis: a restore writes a new marker, and every lane is then rebuilt.
CREATE TABLE installation (
  only_row       boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  restore_marker uuid NOT NULL DEFAULT gen_random_uuid(),
  created_at     timestamptz NOT NULL DEFAULT dts_now()
);
INSERT INTO installation DEFAULT VALUES;

CREATE SEQUENCE fence_seq AS bigint;

-- ---------------------------------------------------------------- who leads, who works

-- One row. The epoch is a unique key and renewals touch other columns, so FOR KEY SHARE on it never waits for a renewal.
CREATE TABLE leadership (
  only_row    boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  epoch       bigint NOT NULL UNIQUE,
  holder      uuid,
  host        text,
  pid         integer,
  renewal     bigint NOT NULL DEFAULT 0,
  acquired_at timestamptz,
  renewed_at  timestamptz
);
INSERT INTO leadership (epoch) VALUES (0);

CREATE TABLE workers (
  id            uuid PRIMARY KEY,
  name          text NOT NULL,
  host          text NOT NULL,
  pid           integer NOT NULL,
  queues        text[] NOT NULL,
  executors     text[] NOT NULL,
  labels        jsonb NOT NULL DEFAULT '{}',
  containment   text NOT NULL,
  slots         integer NOT NULL CHECK (slots > 0),
  version       text NOT NULL,
  state         text NOT NULL CHECK (state IN ('live', 'draining', 'dead', 'left')),
  drain_requested boolean NOT NULL DEFAULT false,
  registered_at timestamptz NOT NULL,
  ended_at      timestamptz,
  end_reason    text,
  CHECK ((state IN ('dead', 'left')) = (ended_at IS NOT NULL))
);
CREATE INDEX workers_alive ON workers (id) WHERE state IN ('live', 'draining');
CREATE INDEX workers_ended ON workers (ended_at) WHERE state IN ('dead', 'left');

-- Apart from `workers`, so that a renewal never waits for a claim's lock on its incarnation.
CREATE TABLE worker_leases (
  worker_id  uuid PRIMARY KEY REFERENCES workers ON DELETE CASCADE,
  renewal    bigint NOT NULL DEFAULT 0,
  running    integer NOT NULL DEFAULT 0,
  renewed_at timestamptz NOT NULL
);

CREATE TABLE queues (
  namespace  text NOT NULL REFERENCES namespaces,
  name       text NOT NULL,
  paused     boolean NOT NULL DEFAULT false,
  updated_at timestamptz NOT NULL,
  updated_by text NOT NULL,
  PRIMARY KEY (namespace, name)
);

-- Every lane that a run was ever put in; the leader walks them.
CREATE TABLE lanes (
  lane       text PRIMARY KEY,
  namespace  text NOT NULL,
  queue      text NOT NULL,
  executor   text NOT NULL,
  requires   jsonb NOT NULL,
  created_at timestamptz NOT NULL DEFAULT dts_now()
);

-- ---------------------------------------------------------------- tasks

-- Recurring definitions live long and are few; one-off ones are history with their runs, and go by partition.
CREATE TABLE tasks (
  id             uuid NOT NULL,
  recurring      boolean NOT NULL,
  namespace      text NOT NULL,
  name           text NOT NULL,
  queue          text NOT NULL,
  tags           text[] NOT NULL DEFAULT '{}',
  spec           jsonb NOT NULL,
  version        integer NOT NULL DEFAULT 1 CHECK (version > 0),
  paused         boolean NOT NULL DEFAULT false,
  occurrences    bigint NOT NULL DEFAULT 0,
  fire_cursor    timestamptz,
  next_fire_at   timestamptz,
  created_at     timestamptz NOT NULL,
  created_by     text NOT NULL,
  updated_at     timestamptz NOT NULL,
  updated_by     text NOT NULL,
  deleted_at     timestamptz,
  PRIMARY KEY (id, recurring),
  CHECK (recurring OR next_fire_at IS NULL)
) PARTITION BY LIST (recurring);

CREATE TABLE tasks_recurring PARTITION OF tasks FOR VALUES IN (true) WITH (fillfactor = 80);
CREATE UNIQUE INDEX tasks_recurring_name ON tasks_recurring (namespace, name) WHERE deleted_at IS NULL;
CREATE INDEX tasks_recurring_due ON tasks_recurring (next_fire_at) WHERE NOT paused AND deleted_at IS NULL;

CREATE TABLE tasks_once PARTITION OF tasks FOR VALUES IN (false) PARTITION BY RANGE (id);

CREATE INDEX tasks_by_name ON tasks (namespace, name, id);
CREATE INDEX tasks_by_tag ON tasks USING gin (tags) WHERE tags <> '{}';

-- ---------------------------------------------------------------- runs

CREATE TABLE runs (
  id               uuid NOT NULL PRIMARY KEY,
  task_id          uuid NOT NULL,
  namespace        text NOT NULL,
  queue            text NOT NULL,
  lane             text NOT NULL,
  priority         smallint NOT NULL CHECK (priority BETWEEN 0 AND 9),
  state            text NOT NULL CHECK (state IN
                     ('pending', 'queued', 'running', 'completed', 'failed', 'cancelled', 'skipped', 'dead_letter')),
  reason           text,
  trigger          text NOT NULL CHECK (trigger IN ('once', 'schedule', 'manual', 'backfill')),
  scheduled_for    timestamptz,
  run_at           timestamptz NOT NULL,
  start_before     timestamptz,
  created_at       timestamptz NOT NULL,
  created_by       text NOT NULL,
  queued_at        timestamptz,
  started_at       timestamptz,
  first_started_at timestamptz,
  finished_at      timestamptz,
  unmet            integer NOT NULL DEFAULT 0 CHECK (unmet >= 0),
  held             boolean NOT NULL DEFAULT false,
  dispatch_seq     integer NOT NULL DEFAULT 0,
  attempt          integer NOT NULL DEFAULT 0,
  fence            bigint,
  worker_id        uuid,
  max_attempts     integer NOT NULL,
  failures         integer NOT NULL DEFAULT 0,
  losses           integer NOT NULL DEFAULT 0,
  suspect          boolean NOT NULL DEFAULT false,
  cancel_requested boolean NOT NULL DEFAULT false,
  exit_code        integer,
  outputs          jsonb,
  output_tail      text,
  traceparent      text,
  task_version     integer,
  version          integer NOT NULL DEFAULT 1,
  CHECK ((state = 'running') = (worker_id IS NOT NULL)),
  CHECK ((state IN ('completed', 'failed', 'cancelled', 'skipped', 'dead_letter')) = (finished_at IS NOT NULL)),
  CHECK (state <> 'queued' OR (unmet = 0 AND NOT held))
) PARTITION BY RANGE (id);

-- Every row stands in exactly one of the first five, so that a transition costs the same however long the history.
-- `held` marks waiting runs of a paused task.
CREATE INDEX runs_pending  ON runs (lane, priority, run_at, id) WHERE state = 'pending' AND unmet = 0 AND NOT held;
CREATE INDEX runs_queued   ON runs (lane, priority DESC, run_at, id) WHERE state = 'queued';
CREATE INDEX runs_running  ON runs (worker_id) WHERE state = 'running';
CREATE INDEX runs_blocked  ON runs (id) WHERE state = 'pending' AND (unmet > 0 OR held);
CREATE INDEX runs_terminal ON runs (state, id) WHERE state IN ('completed', 'failed', 'cancelled', 'skipped', 'dead_letter');
CREATE INDEX runs_start_before ON runs (start_before) WHERE start_before IS NOT NULL AND state IN ('pending', 'queued');
CREATE INDEX runs_by_task  ON runs (task_id, id);

-- Attempts that have ended; the one that executes stands on its run.
CREATE TABLE attempts (
  run_id       uuid NOT NULL,
  attempt      integer NOT NULL CHECK (attempt > 0),
  fence        bigint NOT NULL,
  worker_id    uuid NOT NULL,
  outcome      text NOT NULL CHECK (outcome IN ('completed', 'failed', 'cancelled', 'lost', 'requeued')),
  reason       text,
  exit_code    integer,
  started_at   timestamptz NOT NULL,
  finished_at  timestamptz NOT NULL,
  task_version integer NOT NULL,
  PRIMARY KEY (run_id, attempt)
) PARTITION BY RANGE (run_id);

-- An edge: `run_id` waits for `upstream_run_id`, or for the run of a fire that has no row yet.
CREATE TABLE run_dependencies (
  run_id           uuid NOT NULL,
  position         integer NOT NULL,
  upstream_task_id uuid NOT NULL,
  upstream_run_id  uuid,
  upstream_fire    timestamptz,
  condition        text NOT NULL CHECK (condition IN ('success', 'failure', 'completion')),
  state            text NOT NULL CHECK (state IN ('waiting', 'met', 'impossible')),
  PRIMARY KEY (run_id, position),
  CHECK (upstream_run_id IS NOT NULL OR upstream_fire IS NOT NULL OR state <> 'waiting')
) PARTITION BY RANGE (run_id);
CREATE INDEX run_dependencies_upstream ON run_dependencies (upstream_run_id) WHERE state = 'waiting';
CREATE INDEX run_dependencies_fire ON run_dependencies (upstream_task_id, upstream_fire)
  WHERE state = 'waiting' AND upstream_run_id IS NULL;

-- What became of every planned fire. A missed stretch is one row: from `scheduled_for` to `until`, `count` fires.
CREATE TABLE fires (
  task_id       uuid NOT NULL,
  scheduled_for timestamptz NOT NULL,
  disposition   text NOT NULL CHECK (disposition IN ('fired', 'late', 'coalesced', 'missed') OR disposition LIKE 'skipped:%'),
  run_id        uuid,
  until         timestamptz,
  count         integer NOT NULL DEFAULT 1 CHECK (count > 0),
  decided_at    timestamptz NOT NULL,
  epoch         bigint NOT NULL,
  PRIMARY KEY (task_id, scheduled_for)
) PARTITION BY RANGE (scheduled_for);

CREATE TABLE dead_letter_tasks (
  id          uuid PRIMARY KEY,
  run_id      uuid NOT NULL,
  task_id     uuid NOT NULL,
  namespace   text NOT NULL,
  task_name   text NOT NULL,
  queue       text NOT NULL,
  reason      text NOT NULL,
  attempt     integer NOT NULL,
  failures    integer NOT NULL,
  losses      integer NOT NULL,
  exit_code   integer,
  output_tail text,
  state       text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'replayed', 'discarded')),
  created_at  timestamptz NOT NULL,
  decided_at  timestamptz,
  decided_by  text
);
CREATE INDEX dead_letter_open ON dead_letter_tasks (namespace, id) WHERE state = 'open';
CREATE UNIQUE INDEX dead_letter_run ON dead_letter_tasks (run_id) WHERE state = 'open';

CREATE TABLE checkpoints (
  run_id     uuid PRIMARY KEY,
  data       bytea NOT NULL CHECK (octet_length(data) <= 1048576),
  fence      bigint NOT NULL,
  stored_at  timestamptz NOT NULL
);

-- Output in order of `position`, the offset of the chunk's first byte in all that the attempt printed.
CREATE TABLE output_chunks (
  run_id     uuid NOT NULL,
  attempt    integer NOT NULL,
  position   bigint NOT NULL,
  stream     text NOT NULL CHECK (stream IN ('stdout', 'stderr')),
  data       bytea NOT NULL,
  written_at timestamptz NOT NULL,
  PRIMARY KEY (run_id, attempt, position)
) PARTITION BY RANGE (run_id);

CREATE TABLE idempotency_keys (
  namespace   text NOT NULL,
  key         text NOT NULL,
  fingerprint bytea NOT NULL,
  task_id     uuid NOT NULL,
  run_id      uuid,
  created_at  timestamptz NOT NULL,
  expires_at  timestamptz,
  PRIMARY KEY (namespace, key)
);
CREATE INDEX idempotency_keys_expiry ON idempotency_keys (expires_at);

-- ---------------------------------------------------------------- partitions

-- Weeks start on Monday 00:00 UTC. A default partition catches what no week covers; finding rows there is an alarm.
CREATE TABLE tasks_once_default       PARTITION OF tasks_once DEFAULT;
CREATE TABLE runs_default             PARTITION OF runs DEFAULT;
CREATE TABLE attempts_default         PARTITION OF attempts DEFAULT;
CREATE TABLE run_dependencies_default PARTITION OF run_dependencies DEFAULT;
CREATE TABLE output_chunks_default    PARTITION OF output_chunks DEFAULT;
CREATE TABLE fires_default            PARTITION OF fires DEFAULT;

-- The smallest UUIDv7 that can carry a moment.
CREATE FUNCTION dts_first_id_at(moment timestamptz) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
  SELECT (lpad(to_hex(floor(extract(epoch FROM moment) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
$$;

-- Creates the partitions of the week that holds `moment`; safe to repeat and to run at the same time from several places.
CREATE FUNCTION dts_create_week(moment timestamptz) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  week_start timestamptz := date_trunc('week', moment, 'UTC');
  week_end   timestamptz := week_start + interval '7 days';
  suffix     text := to_char(week_start AT TIME ZONE 'UTC', 'YYYYMMDD');
  parent     text;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtext('dts_create_week'));
  FOREACH parent IN ARRAY ARRAY['tasks_once', 'runs', 'attempts', 'run_dependencies', 'output_chunks'] LOOP
    IF to_regclass(parent || '_' || suffix) IS NULL THEN
      EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES FROM (%L) TO (%L)',
                     parent || '_' || suffix, parent, dts_first_id_at(week_start), dts_first_id_at(week_end));
    END IF;
  END LOOP;
  IF to_regclass('fires_' || suffix) IS NULL THEN
    EXECUTE format('CREATE TABLE %I PARTITION OF fires FOR VALUES FROM (%L) TO (%L)', 'fires_' || suffix, week_start, week_end);
  END IF;
  -- Queues churn: every row is dead twice before it rests, so vacuum by count, not by a share of the history.
  EXECUTE format('ALTER TABLE %I SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000,'
                 ' autovacuum_analyze_scale_factor = 0.05)', 'runs_' || suffix);
END
$$;

SELECT dts_create_week(dts_now() + n * interval '7 days') FROM generate_series(0, 2) AS n;

-- migrate:down
-- Forward only: restore a backup instead.
