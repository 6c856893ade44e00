-- migrate:up

-- What a POST that bore an Idempotency-Key was answered, written in the transaction of what it did. While that is under
-- way `status` is NULL, and nobody else can see the row; who asks with the same key waits for it.
CREATE TABLE request_keys (
  namespace   text NOT NULL,
  actor       text NOT NULL,
  key         text NOT NULL,
  request     text NOT NULL,
  fingerprint bytea NOT NULL,
  status      smallint,
  headers     jsonb,
  body        bytea,
  created_at  timestamptz NOT NULL,
  expires_at  timestamptz NOT NULL,
  PRIMARY KEY (namespace, actor, key)
);
CREATE INDEX request_keys_expiry ON request_keys (expires_at);

-- What the stream of events asks: what has changed since a moment.
CREATE INDEX runs_finished ON runs (finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX tasks_recurring_updated ON tasks_recurring (updated_at);

-- migrate:down
-- Forward only: restore a backup instead.
