# ruff: noqa: S608 - names are quoted, types are those of the catalog, and values are parameters
"""The statements for a batch of records that name the same columns.

Each takes the batch as one JSON array and has PostgreSQL itself make values of the columns' types of it: what a date or
a number may look like is its decision, and a value that it refuses is refused in its own words. Read-back compares by
the same conversion, so a number that a column rounds is what was sent.

Columns are `c0` (the key), `c1`, … in the batch, `n` is the position of a record in it.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from app.destinations.kinds import PostgresOptions
from jobs.crm.postgres.catalog import Column, Table, literal, quote

BATCH: Final = "$1::jsonb"
PAGE: Final = 5_000
"""Keys that are listed at a time."""
NOTHING: Final = "'[]'::jsonb"
"""A batch without records, to have a statement checked."""
_TEXT: Final = frozenset({"json", "xml", "point", "polygon", "box", "circle", "line", "lseg", "path"})
"""Types that have no equality, or not the usual one."""


class Shape(msgspec.Struct, frozen=True):
    """What records of one statement have in common."""

    names: tuple[str, ...] = ()
    """Columns that are set or cleared, without the key."""
    attributes: bool = False
    """They name attributes that are in a column of their own."""
    removed: tuple[str, ...] = ()
    """Attributes that are cleared there."""


class Statements:
    """For one table. Whoever asks for a statement has made sure that the table has its columns."""

    def __init__(self, table: Table, options: PostgresOptions, folded: set[str | None]) -> None:
        self._table = table
        self._options = options
        self._folded = folded
        self._key = table.columns[options.key_column]

    def _columns(self, shape: Shape) -> list[Column]:
        """Those of a batch, in their order: the key, the fields, the attributes, the version."""
        options = self._options
        own = [options.attributes_column] if shape.attributes else []
        names = [*shape.names, *own, options.version_column]
        return [self._key, *(self._table.columns[name] for name in names if name is not None)]

    @staticmethod
    def _given(columns: Sequence[Column], batch: str) -> str:
        members = ", ".join(f"c{n} {column.type}" for n, column in enumerate(columns))
        return f"given AS (SELECT * FROM pg_catalog.jsonb_to_recordset({batch}) AS r(n int, {members}))"

    def upsert(self, shape: Shape, batch: str = BATCH) -> str:
        """Rows (n, key, created). `created` is null where it is not known; false also for a row that was not
        written, because it has these values already, or a newer version."""
        options, table = self._options, self._table.name
        columns = self._columns(shape)
        names = [quote(column.name) for column in columns]
        taken = [self._taken(shape, column) for column in columns]
        pairs = list(zip(columns, taken, strict=True))[1:]
        if options.deleted_column is not None:
            column = self._table.columns[options.deleted_column]
            pairs.append((column, "false" if column.category == "B" else "NULL"))
        changes = [f"{_comparable(f't.{quote(c.name)}', c)} IS DISTINCT FROM {_comparable(v, c)}" for c, v in pairs]
        sets = [f"{quote(c.name)} = {value}" for c, value in pairs] or [f"{names[0]} = excluded.{names[0]}"]
        condition = f"({' OR '.join(changes) or 'false'})"
        if options.version_column is not None:
            version = quote(options.version_column)
            condition += f" AND (t.{version} IS NULL OR t.{version} <= excluded.{version})"
        gone, revived = "", "false"
        if options.deleted_column is not None:
            gone = f", gone AS (SELECT t.{names[0]} AS k FROM {table} t JOIN given g ON t.{names[0]} = g.c0 WHERE "
            gone += f"{self._is_deleted('t')})"
            revived = "EXISTS (SELECT FROM gone WHERE gone.k = g.c0)"
        created = "t.xmax = 0" if self._table.ordinary else "NULL::boolean"
        return f"""
WITH {self._given(columns, batch)}{gone}, written AS (
    INSERT INTO {table} AS t ({", ".join(names)})
    SELECT {", ".join(f"c{n}" for n in range(len(columns)))} FROM given ORDER BY c0
    ON CONFLICT ({names[0]}) DO UPDATE SET {", ".join(sets)} WHERE {condition}
    RETURNING t.{names[0]} AS k, {created} AS created
)
SELECT g.n, g.c0::text AS key, CASE WHEN w.k IS NULL THEN false ELSE w.created OR {revived} END AS created
FROM given g LEFT JOIN written w ON w.k = g.c0
"""

    def delete(self, batch: str = BATCH) -> str:
        """Rows (n): all of the batch, whether there was anything to remove."""
        options, table, key = self._options, self._table.name, quote(self._key.name)
        columns = self._columns(Shape())
        if options.deleted_column is None:
            change = f"DELETE FROM {table} t USING given g WHERE t.{key} = g.c0"
        else:
            column = self._table.columns[options.deleted_column]
            value = "true" if column.category == "B" else "pg_catalog.now()"
            sets = [f"{quote(column.name)} = {value}"]
            if options.version_column is not None:
                sets.append(f"{quote(options.version_column)} = g.c1")
            change = f"UPDATE {table} t SET {', '.join(sets)} FROM given g WHERE t.{key} = g.c0"
            change += f" AND NOT ({self._is_deleted('t')})"
        return f"WITH {self._given(columns, batch)}, gone AS ({change}) SELECT n, c0::text AS key FROM given"

    def read(self, shape: Shape | None, batch: str = BATCH, *, by_fields: bool = False) -> str:
        """Rows (n, key, matches, unlike): the key is null where there is no such row, and `unlike` the JSON text of
        `[[column, ours, theirs], …]` where it does not match. Without a shape whatever is there matches. `by_fields`:
        a row that has the very version of a record is compared all the same."""
        options, table, key = self._options, self._table.name, quote(self._key.name)
        columns = self._columns(shape) if shape is not None else [self._key]
        same = {n: self._same(shape, c, f"g.c{n}") for n, c in enumerate(columns) if n} if shape is not None else {}
        if options.version_column is not None and shape is not None:
            # The last of them is the version: where there is a newer one, nothing else counts.
            version, ours = f"t.{quote(options.version_column)}", f"g.c{len(columns) - 1}"
            same[len(columns) - 1] = f"coalesce({version} >= {ours}, true)"
            decides = ">" if by_fields else ">="
            matches = f"({version} {decides} {ours}) IS TRUE OR ({' AND '.join(same.values())})"
        else:
            matches = " AND ".join(same.values()) or "true"
        unlike = ", ".join(
            f"CASE WHEN ({test}) IS NOT TRUE THEN pg_catalog.jsonb_build_array({literal(columns[n].name)}, "
            f"{_shown(f'g.c{n}')}, {_shown(f't.{quote(columns[n].name)}')}) END"
            for n, test in same.items()
        )
        there = f" AND NOT ({self._is_deleted('t')})" if options.deleted_column is not None else ""
        return f"""
WITH {self._given(columns, batch)}, compared AS (
    SELECT
        g.n, t.{key}::text AS key, coalesce({matches}, false) AS matches,
        {f"pg_catalog.array_remove(ARRAY[{unlike}], NULL)" if unlike else "NULL::jsonb[]"} AS unlike
    FROM given g LEFT JOIN {table} t ON t.{key} = g.c0{there}
)
SELECT n, key, matches, CASE WHEN key IS NOT NULL AND NOT matches THEN pg_catalog.to_jsonb(unlike)::text END AS unlike
FROM compared
"""

    def keys(self, *, first: bool) -> str:
        """Rows (key): a page of the keys there are, after the one that is given unless it is the first page."""
        table, key = self._table.name, quote(self._key.name)
        after = f"t.{key} IS NOT NULL AND $1::text IS NOT NULL" if first else f"t.{key} > $1::{self._key.type}"
        there = f" AND NOT ({self._is_deleted('t')})" if self._options.deleted_column is not None else ""
        return f"SELECT t.{key}::text AS key FROM {table} t WHERE {after}{there} ORDER BY t.{key} LIMIT {PAGE}"

    def _taken(self, shape: Shape, column: Column) -> str:
        """What a column becomes: of the attributes those that are there, with those that are set, without those that
        are cleared."""
        name = quote(column.name)
        if column.name != self._options.attributes_column:
            return f"excluded.{name}"
        merged = f"(coalesce(t.{name}, '{{}}'::jsonb) || excluded.{name})"
        return f"({merged} - {_texts(shape.removed)})" if shape.removed else merged

    def _same(self, shape: Shape, column: Column, ours: str) -> str:
        theirs = f"t.{quote(column.name)}"
        if column.name == self._options.attributes_column:
            held = f"coalesce({theirs}, '{{}}'::jsonb)"
            return f"({held} || coalesce({ours}, '{{}}'::jsonb)) - {_texts(shape.removed)} = {held}"
        if column.category == "S":
            # Triggers trim and fold, and so do other destinations.
            return " = ".join(_plain(value, fold=column.name in self._folded) for value in (theirs, ours))
        return f"{_comparable(theirs, column)} IS NOT DISTINCT FROM {_comparable(ours, column)}"

    def _is_deleted(self, alias: str) -> str:
        column = self._table.columns[str(self._options.deleted_column)]
        return f"{alias}.{quote(column.name)} IS {'TRUE' if column.category == 'B' else 'NOT NULL'}"


def _comparable(value: str, column: Column) -> str:
    if column.base == "json":
        return f"({value})::jsonb"
    return f"({value})::text" if column.base in _TEXT else value


def _shown(value: str) -> str:
    return f"pg_catalog.to_jsonb({value}::text)"


def _plain(value: str, *, fold: bool) -> str:
    text = f"pg_catalog.btrim(pg_catalog.replace(coalesce({value}::text, ''), E'\\r\\n', E'\\n'), E' \\t\\r\\n')"
    return f"pg_catalog.lower({text})" if fold else text


def _texts(values: Sequence[str]) -> str:
    return f"ARRAY[{', '.join(literal(value) for value in values)}]::text[]"
