-- name: read_term
-- reads who leads, and the clock that decides what is due
SELECT epoch, holder, renewal, dts_now() AS now FROM leadership

-- name: own_backend
-- reads the process that serves this connection
SELECT pg_backend_pid()

-- name: take_term
-- released | abandoned → led: only if the row is still as it was seen
UPDATE leadership
SET epoch = epoch + 1, holder = $4, host = $5, pid = $6, renewal = renewal + 1, acquired_at = dts_now(), renewed_at = dts_now()
WHERE epoch = $1 AND holder IS NOT DISTINCT FROM $2 AND renewal = $3
RETURNING epoch

-- name: renew_term
-- led → led: leaves the epoch alone, so it waits for nobody who reads that FOR KEY SHARE
UPDATE leadership SET renewal = renewal + 1, renewed_at = dts_now()
WHERE epoch = $1 AND holder = $2
RETURNING renewed_at

-- name: report_term
-- led → led: what the leader says of itself
UPDATE leadership SET report = $2, reported_at = dts_now() WHERE epoch = $1
RETURNING epoch

-- name: release_term
-- led → released: the next standby need not wait
UPDATE leadership SET holder = NULL, host = NULL, pid = NULL, renewal = renewal + 1
WHERE epoch = $1 AND holder = $2
RETURNING epoch

-- name: hold_term
-- keeps the epoch from ending until the transaction does; no row: it has ended already
SELECT true FROM leadership WHERE epoch = $1 FOR KEY SHARE

-- name: end_blockers
-- ends the sessions that `$1` waits for: they belong to a leader that was stopped in the middle of a statement
SELECT pg_terminate_backend(blocker) FROM unnest(pg_blocking_pids($1)) AS blocker
