-- migrate:up

-- A key's secret has 256 random bits and is stored as its SHA-256: what cannot be guessed needs no slow hash, and every
-- request pays for this one. `namespaces` is sorted; NULL means every namespace, those of the future too.
CREATE TABLE api_keys (
  id           text PRIMARY KEY CHECK (id ~ '^[a-z2-7]{16}$'),
  name         text NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
  hash         bytea NOT NULL CHECK (octet_length(hash) = 32),
  role         text CHECK (role IN ('viewer', 'operator', 'editor', 'admin')),
  permissions  text[] NOT NULL DEFAULT '{}',
  namespaces   text[] CHECK (cardinality(namespaces) > 0),
  created_at   timestamptz NOT NULL,
  created_by   text NOT NULL,
  expires_at   timestamptz,
  last_used_at timestamptz,
  revoked_at   timestamptz,
  revoked_by   text,
  CHECK ((revoked_at IS NULL) = (revoked_by IS NULL))
);
CREATE UNIQUE INDEX api_keys_name ON api_keys (name, namespaces) NULLS NOT DISTINCT WHERE revoked_at IS NULL;

-- What a namespace may have. A deleted one keeps its row: its name is not given to anybody else, who would find its history.
ALTER TABLE namespaces
  ADD COLUMN max_tasks   bigint CHECK (max_tasks > 0),
  ADD COLUMN submit_rate double precision CHECK (submit_rate > 0),
  ADD COLUMN updated_at  timestamptz,
  ADD COLUMN updated_by  text,
  ADD COLUMN deleted_at  timestamptz,
  ADD COLUMN deleted_by  text;

-- Signs the tokens that running commands get: made here, different in every installation, known to whoever can read
-- this database anyway.
ALTER TABLE installation
  ADD COLUMN run_token_key bytea NOT NULL DEFAULT sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()));

-- A listing walks its own namespace only: the ids of others neither slow it down nor show in its cursors.
CREATE INDEX runs_by_namespace ON runs (namespace, id);
CREATE INDEX tasks_by_namespace ON tasks (namespace, id);
CREATE INDEX runs_terminal_by_namespace ON runs (namespace, state, id)
  WHERE state IN ('completed', 'failed', 'cancelled', 'skipped', 'dead_letter');
DROP INDEX runs_terminal;
CREATE INDEX runs_blocked_by_namespace ON runs (namespace) WHERE state = 'pending' AND (unmet > 0 OR held);

-- migrate:down
-- Forward only: restore a backup instead.
