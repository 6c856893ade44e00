-- migrate:up

-- A secret's value is encrypted with a key of its own, which is encrypted with the master key that `key_id` names. No
-- process of PostgreSQL ever sees either. Both encryptions are bound to (namespace, name, version).
CREATE TABLE secrets (
  namespace   text NOT NULL REFERENCES namespaces (name),
  name        text NOT NULL CHECK (length(name) BETWEEN 1 AND 255),
  version     integer NOT NULL CHECK (version > 0),
  key_id      text NOT NULL,
  wrapped_key bytea NOT NULL,
  ciphertext  bytea NOT NULL,
  created_at  timestamptz NOT NULL,
  created_by  text NOT NULL,
  updated_at  timestamptz NOT NULL,
  updated_by  text NOT NULL,
  PRIMARY KEY (namespace, name)
);

-- migrate:down
-- Forward only: restore a backup instead.
