"""The schema of a database as sorted lines of text, read from the catalog: what two schemas differ in can be seen.

`python -m tests.support.schema` applies every migration to an empty database and rewrites `migrations/schema.txt`.
"""

from __future__ import annotations

from pathlib import Path

import asyncpg

SNAPSHOT = Path(__file__).parent.parent.parent / "migrations" / "schema.txt"

# Weekly partitions depend on the day, so only their parents and the default partitions count.
_DESCRIPTION = r"""
WITH relations AS (
  SELECT c.oid, c.relname, c.relkind, c.reloptions, pg_get_partkeydef(c.oid) AS partition_key,
         pg_get_expr(c.relpartbound, c.oid) AS bound
  FROM pg_class c
  WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'S') AND c.relname !~ '_\d{8}$'
)
SELECT format('%s %s%s%s%s', CASE relkind WHEN 'S' THEN 'sequence' ELSE 'table' END, relname,
              ' PARTITION BY ' || partition_key, ' ' || bound, ' WITH ' || reloptions::text) AS line
FROM relations
UNION ALL
SELECT format('column %s.%s %s%s%s', r.relname, a.attname, format_type(a.atttypid, a.atttypmod),
              CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END, ' DEFAULT ' || pg_get_expr(d.adbin, d.adrelid))
FROM relations r JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE r.relkind <> 'S'
UNION ALL
SELECT format('constraint %s.%s %s', r.relname, k.conname, regexp_replace(pg_get_constraintdef(k.oid), '\s+', ' ', 'g'))
FROM relations r JOIN pg_constraint k ON k.conrelid = r.oid WHERE k.contype <> 'n'
UNION ALL
SELECT format('index %s', pg_get_indexdef(i.indexrelid))
FROM relations r JOIN pg_index i ON i.indrelid = r.oid
UNION ALL
SELECT format('function %s', regexp_replace(pg_get_functiondef(p.oid), '\s+', ' ', 'g'))
FROM pg_proc p WHERE p.pronamespace = 'public'::regnamespace
ORDER BY line
"""


async def describe(url: str) -> list[str]:
    """Return one line for each table, column, constraint, index and function."""
    connection = await asyncpg.connect(url)
    try:
        return [row["line"] for row in await connection.fetch(_DESCRIPTION)]
    finally:
        await connection.close()


if __name__ == "__main__":
    import anyio

    from tests.support.servers import session_servers

    with session_servers() as servers, servers.database() as fresh:
        SNAPSHOT.write_text("\n".join(anyio.run(describe, fresh)) + "\n", "utf-8")
