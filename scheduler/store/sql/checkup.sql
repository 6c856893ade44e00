-- name: session_settings
-- reads settings of this session, timeouts in milliseconds; `pg_settings` would look at all that there are, each time that a
-- pool is opened
SELECT name, CASE
    WHEN name LIKE '%\_timeout' THEN (1000 * extract(epoch FROM current_setting(name)::interval))::bigint::text
    ELSE current_setting(name)
  END AS setting
FROM unnest($1::text[]) AS s(name)

-- name: server_settings
-- reads what the server is set to
SELECT name, setting FROM pg_settings WHERE name = ANY($1::text[])

-- name: server_state
-- reads the server's version, clock and place
SELECT current_setting('server_version_num')::int AS version, pg_is_in_recovery() AS standby,
       extract(epoch FROM clock_timestamp())::float8 AS now,
       (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS connections
