"""What PostgreSQL's catalog says of the table that records go to.

It is read in each transaction: whoever widens a column, or adds one, need not report it to anybody.
"""

from typing import Final

import msgspec

from jobs.crm.postgres.connections import Session

_COLUMNS: Final = """
SELECT
    c.relkind::text AS relation,
    a.attname::text AS name,
    pg_catalog.format_type(a.atttypid, a.atttypmod) AS type,
    t.typcategory::text AS category,
    coalesce(b.typname, t.typname)::text AS base,
    (a.attnotnull OR t.typnotnull) AND NOT (a.atthasdef OR a.attidentity <> '') AS required,
    a.attgenerated <> '' OR a.attidentity = 'a' AS computed
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_catalog.pg_type b ON b.oid = t.typbasetype
WHERE c.oid = pg_catalog.to_regclass($1)
"""


class Column(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    type: str
    """As a column definition has it: `numeric(10,2)`, `text[]`."""
    category: str
    """`pg_type.typcategory`: `S` for text, `N` for numbers, …"""
    base: str
    """The name of its type in the catalog, without what is particular to this column; of a domain, that of its base."""
    required: bool
    """It is NOT NULL and has no default."""
    computed: bool
    """Nobody can write it."""


class Table(msgspec.Struct, frozen=True):
    name: str
    """Quoted, as statements have it."""
    columns: dict[str, Column]
    ordinary: bool
    """It has system columns of its own, which a view or a partitioned table has not."""


async def read_table(session: Session, name: str) -> Table | None:
    """`name`: quoted. `None`: there is no such table that its user may see."""
    rows = await session.fetch(_COLUMNS, name)
    columns = [msgspec.convert({key: row[key] for key in Column.__struct_fields__}, Column) for row in rows]
    return Table(name, {c.name: c for c in columns}, rows[0]["relation"] == "r") if rows else None


def quote(name: str) -> str:
    """An identifier."""
    return '"' + name.replace('"', '""') + '"'


def quote_table(name: str) -> str:
    """A table, or schema and table joined by a dot."""
    return ".".join(quote(part) for part in name.split("."))


def literal(text: str) -> str:
    """A string constant, whatever `standard_conforming_strings` is."""
    escaped = text.replace("\\", "\\\\").replace("'", "''")
    return f"E'{escaped}'"
