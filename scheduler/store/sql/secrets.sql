-- name: lock_secret
-- reads the version of a secret, and keeps it until the transaction ends
SELECT version FROM secrets WHERE namespace = $1 AND name = $2 FOR UPDATE

-- name: insert_secret
-- (nothing) → version 1, unless there is one of this name
INSERT INTO secrets (namespace, name, version, key_id, wrapped_key, ciphertext, created_at, created_by, updated_at, updated_by)
SELECT $1, $2, $3, $4, $5, $6, now.at, $7, now.at, $7 FROM (SELECT dts_now() AS at) AS now
ON CONFLICT DO NOTHING
RETURNING name, version, key_id, created_at, created_by, updated_at, updated_by

-- name: replace_secret
-- version n → n + 1
UPDATE secrets SET version = $3, key_id = $4, wrapped_key = $5, ciphertext = $6, updated_at = dts_now(), updated_by = $7
WHERE namespace = $1 AND name = $2 AND version = $3 - 1
RETURNING name, version, key_id, created_at, created_by, updated_at, updated_by

-- name: list_secrets
-- reads secrets by name, after `$2`, without their values
SELECT name, version, key_id, created_at, created_by, updated_at, updated_by FROM secrets
WHERE namespace = $1 AND name > $2 ORDER BY name LIMIT $3

-- name: delete_secret
-- secret → (nothing)
DELETE FROM secrets WHERE namespace = $1 AND name = $2

-- name: sealed_secrets
-- reads encrypted values by name
SELECT namespace, name, version, key_id, wrapped_key, ciphertext FROM secrets WHERE namespace = $1 AND name = ANY($2::text[])

-- name: secret_users
-- reads recurring tasks and workflows that name a secret in an environment
SELECT t.name FROM tasks_recurring t
WHERE t.namespace = $1 AND t.deleted_at IS NULL
  AND jsonb_path_exists(t.spec, '$.env.*.secret ? (@ == $name)', jsonb_build_object('name', $2::text))
UNION ALL
SELECT w.name FROM workflows w
WHERE w.namespace = $1
  AND jsonb_path_exists(w.spec, '$.tasks[*].env.*.secret ? (@ == $name)', jsonb_build_object('name', $2::text))
LIMIT 10

-- name: secrets_under_other_keys
-- reads and keeps some secrets whose keys are not wrapped by the master key `$1`
SELECT namespace, name, version, key_id, wrapped_key, ciphertext FROM secrets WHERE key_id <> $1
ORDER BY namespace, name LIMIT $2 FOR UPDATE

-- name: rewrap_secret
-- wrapped by one master key → by another; the value and its version stay
UPDATE secrets SET key_id = $4, wrapped_key = $5 WHERE namespace = $1 AND name = $2 AND version = $3
