-- name: load_checkpoint
-- reads what the last attempt that wrote a checkpoint has left
SELECT data FROM checkpoints WHERE run_id = $1

-- name: save_checkpoint
-- (nothing) | stored → stored: the checkpoint of a running attempt, if `$2` still is its fence
INSERT INTO checkpoints AS old (run_id, data, fence, stored_at)
SELECT r.id, $3, r.fence, dts_now() FROM runs r WHERE r.id = $1 AND r.fence = $2 AND r.state = 'running'
ON CONFLICT (run_id) DO UPDATE
SET data = excluded.data, fence = excluded.fence, stored_at = excluded.stored_at
WHERE old.fence <= excluded.fence
RETURNING run_id
