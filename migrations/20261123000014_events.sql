-- migrate:up

-- What somebody has said has happened, and the runs that began because of it. The payload is at most 256 KiB.
CREATE TABLE events (
  id           uuid PRIMARY KEY,
  namespace    text NOT NULL REFERENCES namespaces,
  name         text NOT NULL,
  payload      jsonb NOT NULL,
  published_at timestamptz NOT NULL,
  published_by text NOT NULL
);
CREATE INDEX events_by_namespace ON events (namespace, id);
CREATE INDEX events_by_name ON events (namespace, name, id);

CREATE TABLE event_runs (
  run_id   uuid PRIMARY KEY,
  task_id  uuid NOT NULL,
  event_id uuid NOT NULL REFERENCES events ON DELETE CASCADE
);
CREATE INDEX event_runs_by_event ON event_runs (event_id);

-- Who waits for which event: a schedule `@event NAME`, in this form exactly.
CREATE INDEX tasks_recurring_event ON tasks_recurring (namespace, (spec ->> 'schedule'))
  WHERE deleted_at IS NULL AND spec ->> 'schedule' LIKE '@event %';

-- Old entries of the audit log may go, by whole seals: whoever owns the log says so in the transaction. The seals stay,
-- so the chain stays whole, and what was removed stands here.
CREATE TABLE audit_prunings (
  up_to     bigint PRIMARY KEY,
  pruned_at timestamptz NOT NULL
);
CREATE TRIGGER audit_prunings_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_prunings
  FOR EACH STATEMENT EXECUTE FUNCTION dts_append_only();

CREATE FUNCTION dts_append_and_prune_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'DELETE' AND current_setting('dts.prune_audit', true) = 'on' THEN
    RETURN NULL;
  END IF;
  RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END $$;
DROP TRIGGER audit_log_append_only ON audit_log;
CREATE TRIGGER audit_log_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
  FOR EACH STATEMENT EXECUTE FUNCTION dts_append_and_prune_only();

-- migrate:down
-- Forward only: restore a backup instead.
