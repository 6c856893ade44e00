-- migrate:up

-- What the leader says of itself every few seconds, for whoever is asked: its parts that fail, and how deep the queues are.
-- It is of the term whose epoch it names.
ALTER TABLE leadership ADD COLUMN report jsonb, ADD COLUMN reported_at timestamptz;
