-- name: hold_request_key
-- (nothing) → held: the key of a request, unless an answer is kept under it (waits for whoever holds it to commit or give up)
INSERT INTO request_keys AS held (namespace, actor, key, request, fingerprint, created_at, expires_at)
VALUES ($1, $2, $3, $4, $5, dts_now(), dts_now() + make_interval(secs => $6))
ON CONFLICT (namespace, actor, key) DO UPDATE
SET request = excluded.request, fingerprint = excluded.fingerprint, status = NULL, headers = NULL, body = NULL,
    created_at = excluded.created_at, expires_at = excluded.expires_at
WHERE held.expires_at <= dts_now()
RETURNING key

-- name: kept_answer
-- reads what was answered to the request that used a key
SELECT request, fingerprint, status, headers, body, created_at FROM request_keys
WHERE namespace = $1 AND actor = $2 AND key = $3

-- name: keep_answer
-- held → answered, in the transaction of what the request did
UPDATE request_keys SET status = $4, headers = $5, body = $6 WHERE namespace = $1 AND actor = $2 AND key = $3

-- name: forget_answers
-- answered → (nothing): the keys of requests, once they have expired
DELETE FROM request_keys k
USING (
  SELECT namespace, actor, key FROM request_keys WHERE expires_at <= dts_now()
  ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED
) AS expired
WHERE k.namespace = expired.namespace AND k.actor = expired.actor AND k.key = expired.key
RETURNING 1
