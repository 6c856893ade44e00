-- fragment: key_columns
-- of `k`, an API key
k.id, k.name, k.hash, k.role, k.permissions, k.namespaces, k.created_at, k.created_by, k.expires_at, k.last_used_at, k.revoked_at

-- name: insert_key
-- (nothing) → valid: nothing is inserted if a valid key of these namespaces bears the name
INSERT INTO api_keys AS k (id, name, hash, role, permissions, namespaces, expires_at, created_at, created_by)
VALUES ($1, $2, $3, $4, $5, $6, $7, dts_now(), $8)
ON CONFLICT (name, namespaces) WHERE revoked_at IS NULL DO NOTHING
RETURNING
-- include: key_columns

-- name: get_key
-- reads one key, revoked or not
SELECT
-- include: key_columns
FROM api_keys k WHERE k.id = $1

-- name: list_keys
-- reads keys that are not revoked and lie within the namespaces `$1` (NULL: all), in the order of their ids, from above `$2`
SELECT
-- include: key_columns
FROM api_keys k
WHERE k.revoked_at IS NULL AND k.id > $2 AND ($1::text[] IS NULL OR k.namespaces <@ $1)
ORDER BY k.id LIMIT $3

-- name: revoke_key
-- valid → revoked, if it lies within the namespaces `$2` (NULL: all)
UPDATE api_keys k SET revoked_at = dts_now(), revoked_by = $3
WHERE k.id = $1 AND k.revoked_at IS NULL AND ($2::text[] IS NULL OR k.namespaces <@ $2)
RETURNING k.id

-- name: ended_keys
-- reads which of some keys hold no longer
SELECT k.id FROM api_keys k
WHERE k.id = ANY($1::text[]) AND (k.revoked_at IS NOT NULL OR k.expires_at <= dts_now())

-- name: note_key_use
-- used before → used now: once for all keys that were used lately, not once for each request
UPDATE api_keys k SET last_used_at = dts_now() WHERE k.id = ANY($1::text[])

-- name: run_token_key
-- reads what signs the tokens of running commands
SELECT run_token_key FROM installation
