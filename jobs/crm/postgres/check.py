"""A look at the table in PostgreSQL: its columns by the catalog, and the statements of deliveries by EXPLAIN, which
plans them and asks for all rights, and carries nothing out."""

import time
from typing import Final

from app.destinations.kinds import PostgresOptions
from app.destinations.testing.rules import Step
from app.resources.declaration import Field, Kind, Resource
from jobs.crm.mapping import FieldMap
from jobs.crm.port import SentRecord
from jobs.crm.postgres.answers import Place, PostgresJudge
from jobs.crm.postgres.catalog import Column, Table
from jobs.crm.postgres.connections import Session
from jobs.crm.postgres.statements import NOTHING, Shape, Statements
from jobs.crm.postgres.wire import ServerError

OPTIONAL_COLUMNS: Final = ("attributes_column", "version_column", "deleted_column")

_TEXTS: Final = frozenset({"json", "jsonb"})
_SUITS: Final = {
    **dict.fromkeys((Kind.TEXT, Kind.EMAIL, Kind.PHONE, Kind.URI), "SE"),
    **dict.fromkeys((Kind.DATE, Kind.DATE_TIME), "SD"),
    Kind.INTEGER: "SN",
    Kind.NUMBER: "SN",
    Kind.BOOLEAN: "SB",
    Kind.UUID: "S",
}
"""Categories of types (`pg_type.typcategory`) that take every value of a kind of field; `S` are texts of all sorts."""
_WHOLE: Final = frozenset({"int2", "int4", "int8", "oid"})
_OWN: Final = {"attributes_column": "jsonb", "version_column": "bigint", "deleted_column": "boolean or timestamptz"}


class Check:
    """The steps of one test."""

    def __init__(self, options: PostgresOptions, resource: Resource, fields: FieldMap, place: Place) -> None:
        self._options = options
        self._resource = resource
        self._map = fields
        self._place = place
        self._steps: list[Step] = []
        self._since = time.monotonic()

    def connected(self, session: Session) -> None:
        how = "encrypted by TLS" if session.encrypted else "without TLS"
        self._add("connect", True, f"PostgreSQL {session.server} let the user in, {how}.")

    async def run(self, session: Session, table: Table, statements: Statements, judge: PostgresJudge) -> None:
        self._add("table", True, f"{table.name} has {len(table.columns)} columns.")
        targets = self._targets()
        faults = self._find_faults(table, targets)
        fit = f"Every field of {self._resource.name} that is sent has a column of a type that takes it."
        self._add("columns", not faults, "; ".join(faults) + "." if faults else fit)
        writable = [name for name in targets if name in table.columns and not table.columns[name].computed]
        shape = Shape(tuple(sorted(writable)), self._options.attributes_column is not None)
        remove = "delete" if self._options.deleted_column is None else "mark as deleted"
        for name, statement, words in (
            ("write", statements.upsert(shape, NOTHING), "insert and update"),
            ("remove", statements.delete(NOTHING), remove),
            ("read", statements.read(shape, NOTHING), "read"),
        ):
            try:
                await session.fetch(f"EXPLAIN {statement}")
            except ServerError as error:
                await session.execute("ROLLBACK TO s")
                self._add(name, False, judge.judge(error, self._place).detail)
            else:
                self._add(name, True, f"PostgreSQL lets the user {words} rows; nothing was carried out.")

    def finish(self, failure: str | None) -> list[Step]:
        """All steps; `failure`: what ended the test."""
        if failure is not None:
            self._add("table" if self._steps else "connect", False, failure)
        return self._steps

    def _add(self, name: str, ok: bool, detail: str) -> None:
        since, self._since = self._since, time.monotonic()
        self._steps.append(Step(name=name, ok=ok, detail=detail, milliseconds=round((self._since - since) * 1000)))

    def _targets(self) -> dict[str, Field]:
        """The columns that fields of the type go to."""
        found: dict[str, Field] = {}
        for field in self._resource.fields:
            probe = SentRecord(record_id="", version=0, fields={field.name: None})
            found |= {name: field for name in self._map.sources(probe) if name != self._options.key_column}
        return found

    def _find_faults(self, table: Table, targets: dict[str, Field]) -> list[str]:
        faults = [
            f"{field.name}: {self._place.lacks(name, field.name, None)}"
            for name, field in targets.items()
            if name not in table.columns
        ]
        for name, field in targets.items():
            column = table.columns.get(name)
            if column is not None and column.computed:
                faults.append(f'{field.name}: PostgreSQL computes {name} itself; exclude it (--field "{field.name}=")')
            elif column is not None and not takes(column, field):
                faults.append(f"{field.name}: {name} is of type {column.type}, which does not take every {field.kind}")
        own = {option: getattr(self._options, option) for option in OPTIONAL_COLUMNS}
        for option, name in own.items():
            if name is not None and not _is_own(option, table.columns[name]):
                faults.append(f"{option}: {name} is of type {table.columns[name].type}; it should be {_OWN[option]}")
        filled = {self._options.key_column, *targets, *self._map.mapped, *own.values()}
        faults += [
            f"{name} is NOT NULL without a default, and nothing is sent there"
            for name, column in table.columns.items()
            if column.required and name not in filled
        ]
        return faults


def takes(column: Column, field: Field) -> bool:
    """Whether a column takes every value of a field, by their types; lengths and constraints are another matter."""
    if column.base in _TEXTS:
        return True
    if field.many is not None:
        return column.category in "AS"
    if field.kind is Kind.UUID and column.base == "uuid":
        return True
    if field.kind is Kind.NUMBER and column.base in _WHOLE:
        return False
    return column.category in _SUITS[field.kind]


def _is_own(option: str, column: Column) -> bool:
    if option == "attributes_column":
        return column.base == "jsonb"
    return column.category in ("N" if option == "version_column" else "BD")
