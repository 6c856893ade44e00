-- name: append_output
-- (nothing) → kept: pieces of output; one that is there already (its answer was lost) stays as it is
INSERT INTO output_chunks (run_id, attempt, position, stream, data, written_at)
SELECT p.run_id, p.attempt, p.position, p.stream, p.data, clock.at
FROM unnest($1::uuid[], $2::integer[], $3::bigint[], $4::text[], $5::bytea[]) AS p(run_id, attempt, position, stream, data),
     (SELECT dts_now() AS at) AS clock
ON CONFLICT DO NOTHING

-- name: trim_output
-- kept → (nothing): the oldest pieces of an attempt, beyond what it may keep
DELETE FROM output_chunks WHERE run_id = $1 AND attempt = $2 AND position < $3
