-- migrate:up

-- A workflow is a definition beside a recurring task of the same name, the carrier, which has its schedule and whose runs
-- are the workflow's runs.
CREATE TABLE workflows (
  task_id    uuid PRIMARY KEY,
  namespace  text NOT NULL REFERENCES namespaces,
  name       text NOT NULL,
  spec       jsonb NOT NULL,
  version    integer NOT NULL DEFAULT 1 CHECK (version > 0),
  created_at timestamptz NOT NULL,
  created_by text NOT NULL,
  updated_at timestamptz NOT NULL,
  updated_by text NOT NULL,
  UNIQUE (namespace, name)
);

-- What a run of the carrier runs: the definition as it stood when it began.
CREATE TABLE workflow_runs (
  run_id      uuid PRIMARY KEY,
  task_id     uuid NOT NULL,
  namespace   text NOT NULL,
  version     integer NOT NULL,
  spec        jsonb NOT NULL,
  parameters  jsonb NOT NULL,
  unfolded_at timestamptz,
  ended       boolean NOT NULL DEFAULT false
);
CREATE INDEX workflow_runs_open ON workflow_runs (run_id) WHERE NOT ended;

CREATE TABLE workflow_nodes (
  run_id      uuid NOT NULL REFERENCES workflow_runs ON DELETE CASCADE,
  position    integer NOT NULL,
  name        text NOT NULL,
  task_id     uuid NOT NULL,
  node_run_id uuid NOT NULL,
  PRIMARY KEY (run_id, position)
);

-- migrate:down
-- Forward only: restore a backup instead.
