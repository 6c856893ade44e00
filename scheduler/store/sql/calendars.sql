-- name: get_calendar
-- reads one calendar
SELECT name, spec, version, created_at, created_by, updated_at, updated_by FROM calendars WHERE namespace = $1 AND name = $2

-- name: list_calendars
-- reads calendars by name, after `$2`
SELECT name, spec, version, created_at, created_by, updated_at, updated_by FROM calendars
WHERE namespace = $1 AND name > $2 ORDER BY name LIMIT $3

-- name: find_calendars
-- reads calendars by (namespace, name)
SELECT c.namespace, c.name, c.spec
FROM unnest($1::text[], $2::text[]) AS w(namespace, name)
JOIN calendars c ON c.namespace = w.namespace AND c.name = w.name

-- name: insert_calendar
-- (nothing) → calendar, unless the name is taken
INSERT INTO calendars (namespace, name, spec, created_at, created_by, updated_at, updated_by)
SELECT $1, $2, $3, now.at, $4, now.at, $4 FROM (SELECT dts_now() AS at) AS now
ON CONFLICT DO NOTHING
RETURNING version

-- name: replace_calendar
-- version n → n + 1, if it is at `$5` (NULL: whatever it is at)
UPDATE calendars SET spec = $3, version = version + 1, updated_at = dts_now(), updated_by = $4
WHERE namespace = $1 AND name = $2 AND ($5::bigint IS NULL OR version = $5)
RETURNING version

-- name: delete_calendar
-- calendar → (nothing), if it is at `$3` (NULL: whatever it is at)
DELETE FROM calendars WHERE namespace = $1 AND name = $2 AND ($3::bigint IS NULL OR version = $3) RETURNING version

-- name: calendar_users
-- reads recurring tasks that keep to a calendar
SELECT t.name FROM tasks_recurring t
WHERE t.namespace = $1 AND t.deleted_at IS NULL
  AND t.spec @> jsonb_build_object('calendars', jsonb_build_array($2::text))
ORDER BY t.id LIMIT 10
