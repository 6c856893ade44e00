-- migrate:up

-- When schedules do not fire. Recurring tasks name the calendars that they keep to.
CREATE TABLE calendars (
  namespace  text NOT NULL REFERENCES namespaces,
  name       text NOT NULL,
  spec       jsonb NOT NULL,
  version    integer NOT NULL DEFAULT 1 CHECK (version > 0),
  created_at timestamptz NOT NULL,
  created_by text NOT NULL,
  updated_at timestamptz NOT NULL,
  updated_by text NOT NULL,
  PRIMARY KEY (namespace, name)
);

-- migrate:down
-- Forward only: restore a backup instead.
