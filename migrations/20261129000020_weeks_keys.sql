-- migrate:up

-- What the leader asks for the keys of a week's tasks, which go before the week does, and for those of a recurring task. The
-- older one of the latter alone goes first, so that the table is taken once, for all of it.
DROP INDEX idempotency_keys_recurring;
CREATE INDEX idempotency_keys_task ON idempotency_keys (task_id);

-- migrate:down
-- Forward only: restore a backup instead.
