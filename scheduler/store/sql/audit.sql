-- fragment: audit_text
-- of `a`, a row of the audit log: what its digest is made of
jsonb_build_array(a.seq, (extract(epoch FROM a.at) * 1000000)::bigint, a.namespace, a.actor, a.action, a.object,
                  a.request_id, a.status, a.version_before, a.version_after, a.count, a.address)::text

-- name: write_audit
-- (nothing) → logged: in the transaction of what it tells of
INSERT INTO audit_log (at, namespace, actor, action, object, request_id, status, version_before, version_after, count, address)
SELECT dts_now(), n.*
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::smallint[], $7::integer[], $8::integer[],
            $9::integer[], $10::text[]) AS n

-- name: audit_drawn
-- reads how many numbers were drawn so far
SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM audit_log_seq

-- name: audit_head
-- reads the newest seal
SELECT number, first_seq, last_seq, rows, digest, hash, sealed_at FROM audit_seals ORDER BY number DESC LIMIT 1

-- name: audit_transaction
-- reads this transaction's id: it is above that of every transaction that had one before
SELECT pg_current_xact_id()::text::bigint

-- name: audit_horizon
-- reads the id below which every transaction has ended
SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint

-- name: audit_end_of_chunk
-- reads where a seal ends that begins after `$1`, goes no further than `$2`, and covers `$3` rows at most
SELECT coalesce((SELECT a.seq FROM audit_log a WHERE a.seq > $1 AND a.seq <= $2 ORDER BY a.seq OFFSET $3 - 1 LIMIT 1), $2)

-- name: audit_digest
-- reads how many rows there are from `$1` to `$2`, and their digest
SELECT count(*) AS rows, sha256(convert_to(coalesce(string_agg(text, E'\n' ORDER BY seq), ''), 'UTF8')) AS digest
FROM (
  SELECT a.seq,
-- include: audit_text
         AS text
  FROM audit_log a WHERE a.seq BETWEEN $1 AND $2
) AS r

-- name: insert_seal
-- logged → sealed
INSERT INTO audit_seals (number, first_seq, last_seq, rows, digest, hash, sealed_at, epoch)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)

-- name: list_seals
-- reads seals in order, after `$1`
SELECT number, first_seq, last_seq, rows, digest, hash, sealed_at FROM audit_seals WHERE number > $1 ORDER BY number LIMIT $2

-- name: audit_pruned
-- reads up to which seal the log was pruned, 0 if it never was
SELECT coalesce(max(up_to), 0) FROM audit_prunings

-- name: audit_prunable
-- reads the newest seal that is older than `$1` seconds, and how many rows are under those that were not pruned before
SELECT max(s.number) AS number, sum(s.rows)::bigint AS rows FROM audit_seals s
WHERE s.sealed_at < dts_now() - make_interval(secs => $1)
  AND s.number > (SELECT coalesce(max(up_to), 0) FROM audit_prunings)

-- name: insert_pruning
-- logged → pruned: what is under the seals up to this one may go
INSERT INTO audit_prunings (up_to, pruned_at) VALUES ($1, dts_now())

-- name: allow_pruning
-- keeps pruning allowed until the transaction ends, for whoever owns the log
SELECT set_config('dts.prune_audit', 'on', true)

-- name: prune_audit
-- pruned → (nothing): `$1` rows at most
DELETE FROM audit_log a
WHERE a.seq IN (
  SELECT o.seq FROM audit_log o
  WHERE o.seq <= (SELECT s.last_seq FROM audit_seals s WHERE s.number = (SELECT max(p.up_to) FROM audit_prunings p))
  ORDER BY o.seq LIMIT $1
)
RETURNING 1

-- name: audit_unsealed
-- reads how many rows stand after the last seal's last row
SELECT count(*) FROM audit_log a WHERE a.seq > $1

-- fragment: audit_page
-- of the namespace's rows `a` below `$2`, the newest `$4`, those that match
walked AS (
  SELECT count(*) AS walked, min(seq) AS floor FROM stretch
), found AS (
  SELECT seq AS id, seq, at, namespace, actor, action, object, request_id, status, version_before, version_after, count, address
  FROM stretch
  WHERE ($5::text IS NULL OR actor = $5) AND ($6::text IS NULL OR action = $6) AND ($7::text IS NULL OR object = $7)
    AND ($8::boolean IS NULL OR (status IN (401, 403)) = $8)
  ORDER BY seq DESC LIMIT $3
)
SELECT w.walked, w.floor, f.* FROM walked w LEFT JOIN found f ON true ORDER BY f.seq DESC

-- name: list_audit
-- reads what happened in a namespace, newest first
WITH stretch AS MATERIALIZED (
  SELECT * FROM audit_log a WHERE a.namespace = $1 AND a.seq < $2 ORDER BY a.seq DESC LIMIT $4
),
-- include: audit_page

-- name: list_audit_of_all
-- reads what happened anywhere, newest first
WITH stretch AS MATERIALIZED (
  SELECT * FROM audit_log a WHERE $1::text IS NULL AND a.seq < $2 ORDER BY a.seq DESC LIMIT $4
),
-- include: audit_page
