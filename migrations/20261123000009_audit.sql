-- migrate:up

-- Who changed what, and who was refused: rows are only ever added. `namespace` is NULL for what concerns no namespace,
-- `status` the HTTP status of the answer, `count` how many objects (or, of refusals, requests) the row stands for.
-- `xid` comes before `seq`: defaults are computed in this order, so whoever has drawn a number has a transaction id,
-- and the sealer can tell when all that drew numbers before some moment have ended.
CREATE SEQUENCE audit_log_seq AS bigint;
CREATE TABLE audit_log (
  xid            xid8 NOT NULL DEFAULT pg_current_xact_id(),
  seq            bigint NOT NULL DEFAULT nextval('audit_log_seq') PRIMARY KEY,
  at             timestamptz NOT NULL,
  namespace      text,
  actor          text NOT NULL,
  action         text NOT NULL,
  object         text,
  request_id     text NOT NULL,
  status         smallint NOT NULL,
  version_before integer,
  version_after  integer,
  count          integer NOT NULL DEFAULT 1,
  address        text
);
ALTER SEQUENCE audit_log_seq OWNED BY audit_log.seq;
CREATE INDEX audit_log_by_namespace ON audit_log (namespace, seq);

-- A seal covers all rows with first_seq <= seq <= last_seq, at a moment when none of them could come any more. `digest`
-- is of these rows, `hash` of the seal with the hash of the one before.
CREATE TABLE audit_seals (
  number    bigint PRIMARY KEY CHECK (number > 0),
  first_seq bigint NOT NULL,
  last_seq  bigint NOT NULL UNIQUE CHECK (last_seq >= first_seq),
  rows      bigint NOT NULL,
  digest    bytea NOT NULL CHECK (octet_length(digest) = 32),
  hash      bytea NOT NULL CHECK (octet_length(hash) = 32),
  sealed_at timestamptz NOT NULL,
  epoch     bigint NOT NULL
);

CREATE FUNCTION dts_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER audit_log_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
  FOR EACH STATEMENT EXECUTE FUNCTION dts_append_only();
CREATE TRIGGER audit_seals_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_seals
  FOR EACH STATEMENT EXECUTE FUNCTION dts_append_only();

-- migrate:down
-- Forward only: restore a backup instead.
