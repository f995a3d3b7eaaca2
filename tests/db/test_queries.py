"""Every named query fits the schema, is used, and finds its rows by an index however the planner looks at it."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import pkgutil
import re
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import asyncpg
import msgspec
import pytest

import app
import jobs
from app.embedded import Engines
from app.kit.postgres.query import DECLARED, Json, fields_of, plan
from app.kit.postgres.sql import QUERIES
from tests.citus_rules import CALL, STABLE, VOLATILE
from tests.conftest import TEMPLATE, with_path
from tests.db import hot
from tests.db.filling import fill
from tests.db.hot.values import NULLS, Hot

for _module in pkgutil.walk_packages(app.__path__, "app."):
    if not _module.name.startswith(("app.migrations", "app.cli", "app.sandbox", "app.api")):
        importlib.import_module(_module.name)

HOT: Hot = {}
for _area in pkgutil.iter_modules(hot.__path__):
    HOT |= getattr(importlib.import_module(f"{hot.__name__}.{_area.name}"), "HOT", {})
"""Arguments, and the indexes that the plan must use."""


BIG = {
    "records",
    "record_versions",
    "jobs",
    "job_chunks",
    "deliveries",
    "effects",
    "record_syncs",
    "dead_letters",
    "idempotency_keys",
    "staged_chunks",
    "staged_repeats",
    "delivery_calls",
    "sagas",
    "audit_log",
    "circuit_changes",
    "webhook_messages",
}
"""Tables that grow with use: none of them is ever read from end to end."""

MODES = ("force_custom_plan", "force_generic_plan")


@pytest.fixture(scope="module")
def filled_url(engines: Engines) -> Iterator[str]:
    """A database with enough in it, for reading only."""
    name = f"test_filled_{os.getpid()}"

    async def run(*statements: str, fill_it: bool = False) -> None:
        admin = await asyncpg.connect(engines.urls.database_url)
        for statement in statements:
            await admin.execute(statement)
        await admin.close()
        if fill_it:
            connection = await asyncpg.connect(with_path(engines.urls.database_url, name))
            await fill(connection)
            await connection.close()

    asyncio.run(run(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} STRATEGY file_copy", fill_it=True))
    yield with_path(engines.urls.database_url, name)
    asyncio.run(run(f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
async def filled(filled_url: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    """As the service plans: without JIT."""
    connection = await asyncpg.connect(filled_url, server_settings={"jit": "off"})
    yield connection
    await connection.close()


async def check_plan(connection: asyncpg.Connection[Any], name: str, mode: str) -> None:
    """The plan of a hot query uses its indexes and reads no big table whole."""
    arguments, expected = HOT[name]
    await connection.execute(f"SET plan_cache_mode = {mode}")
    await connection.execute(f"PREPARE {name} AS {QUERIES[name]}")
    if arguments.endswith(NULLS):
        count = await connection.fetchval(
            "SELECT cardinality(parameter_types) FROM pg_prepared_statements WHERE name = $1", name
        )
        arguments = arguments.replace(NULLS, ", NULL" * (count - 1))
    call = f"{name}({arguments})" if arguments else name
    (plan,) = json.loads(await connection.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE {call}"))
    used: set[str] = set()
    for node in nodes(plan["Plan"]):
        relation = node.get("Relation Name")
        assert node["Node Type"] != "Seq Scan" or relation not in BIG, f"{name} reads all of {relation}"
        used |= {node.get("Index Name", ""), *node.get("Conflict Arbiter Indexes", ())}
    assert used >= expected, f"{name} does without {expected - used}"


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


@pytest.mark.parametrize("name", sorted(QUERIES))
async def test_a_query_fits_the_schema(filled: asyncpg.Connection[Any], name: str) -> None:
    """PostgreSQL can prepare it: every table, column and type is there."""
    await filled.prepare(QUERIES[name])


TYPES: dict[str, tuple[type, ...]] = {
    "bool": (bool,),
    "bytea": (bytes,),
    "float8": (float,),
    "interval": (timedelta,),
    "json": (str,),
    "jsonb": (str,),
    "name": (str,),
    "numeric": (float,),
    "text": (str,),
    "timestamptz": (datetime,),
    "uuid": (uuid.UUID,),
    "varchar": (str,),
    **dict.fromkeys(("int2", "int4", "int8"), (int,)),
}
"""What asyncpg makes of PostgreSQL's types."""


def fits(kind: Any, column: str) -> bool:
    """Whether a value of a PostgreSQL type is one of this annotation, or may be given as one."""
    if kind is Any:
        return True
    parts = [part for part in get_args(kind) if part is not NoneType] if is_union(kind) else [kind]
    (kind,) = parts
    if get_origin(kind) is Literal:
        kind = str
    if get_origin(kind) is Annotated:
        given = {"json": str, "seconds": timedelta}
        kind = next((given[word] for word in kind.__metadata__ if word in given), kind.__origin__)
    if column.endswith("[]"):
        (kind,) = get_args(kind)
        return fits(kind, column.removesuffix("[]"))
    return isinstance(kind, type) and issubclass(kind, TYPES[column])


def is_union(kind: Any) -> bool:
    return get_origin(kind) in (Union, UnionType)


def name_of(kind: asyncpg.Type) -> str:
    return f"{kind.name.removesuffix('[]')}[]" if kind.kind == "array" else kind.name


@pytest.mark.parametrize("name", sorted(DECLARED))
async def test_a_declaration_is_the_querys(filled: asyncpg.Connection[Any], name: str) -> None:
    """Its parameters and the fields of its rows are those of the query, by number, name and type."""
    declared = DECLARED[name]()
    statement = await filled.prepare(QUERIES[name])
    parameters = [name_of(parameter) for parameter in statement.get_parameters()]
    assert len(declared.arguments) == len(parameters)
    wrong = [pair for pair in zip(declared.arguments, parameters, strict=True) if not fits(*pair)]
    assert not wrong
    columns = {a.name: name_of(a.type) for a in statement.get_attributes() if a.type.name != "void"}
    if declared.row is None:
        return
    plan(name, declared.row, tuple(columns))
    if get_origin(declared.row) is dict:
        return
    fields = fields_of(declared.row)
    if fields:
        kinds = [fields[column] for column in columns]
    elif get_origin(declared.row) is tuple:
        kinds = list(get_args(declared.row))
    else:  # the first column; what others call makes something happen
        kinds = [declared.row, *[Any] * (len(columns) - 1)]
    wrong = [pair for pair in zip(kinds, columns.values(), strict=True) if not fits(*pair)]
    assert not wrong


def test_every_query_is_declared_once() -> None:
    """By a function, or by the one module that reads it row by row."""
    assert set(QUERIES) - set(DECLARED) == {"sources_in"}


class Pair(msgspec.Struct, frozen=True):
    one: int
    other: Json[list[int]] | None


def test_rows_are_read_by_name() -> None:
    """Whatever the order of the columns, and their JSON decoded."""
    read = plan("pairs", Pair, ("other", "one"))
    assert read({"other": "[2]", "one": 1}) == Pair(1, [2])
    assert read({"other": None, "one": 1}) == Pair(1, None)


@pytest.mark.parametrize("columns", [("one",), ("one", "others"), ("one", "other", "third")])
def test_a_row_of_other_columns_is_refused(columns: tuple[str, ...]) -> None:
    with pytest.raises(TypeError, match="pairs and Pair do not agree"):
        plan("pairs", Pair, columns)


YOUNG = """
    DELETE FROM pg_proc p
    WHERE p.pronamespace = 'pg_catalog'::regnamespace AND (
        p.proname IN ('min', 'max') AND p.proargtypes::text IN ('17', '2249', '2277')
        OR p.proname IN (
            'any_value', 'array_reverse', 'array_sample', 'array_shuffle', 'array_sort', 'casefold', 'crc32', 'crc32c',
            'date_add', 'date_subtract', 'random_normal', 'to_bin', 'to_oct', 'uuid_extract_timestamp',
            'uuid_extract_version', 'uuidv4', 'uuidv7'
        )
    )
"""
"""Takes away what PostgreSQL has had only since 16, 17 or 18."""


async def test_no_query_needs_a_newer_postgresql(database_url: str) -> None:
    """PostgreSQL 15 has fewer functions than the one that runs here."""
    connection = await asyncpg.connect(database_url)
    await connection.execute("SET allow_system_table_mods = on")
    await connection.execute(YOUNG)
    await connection.close()
    connection = await asyncpg.connect(database_url)
    with pytest.raises(asyncpg.UndefinedFunctionError):
        await connection.prepare("SELECT min('a'::bytea)")
    for name in sorted(QUERIES):
        await connection.prepare(QUERIES[name])
    await connection.close()


async def test_the_mutable_functions_are_known(filled: asyncpg.Connection[Any]) -> None:
    """The rules for Citus are about them; these three are mutable only of other arguments than ours."""
    called = {name.lower() for sql in QUERIES.values() for name in CALL.findall(sql)}
    rows = await filled.fetch(
        "SELECT DISTINCT proname::text FROM pg_proc WHERE proname = ANY ($1::text[]) AND provolatile <> 'i'",
        list(called),
    )
    assert {row[0] for row in rows} - {"generate_series", "length", "time"} <= VOLATILE | STABLE


def test_every_query_is_used() -> None:
    """One that nobody names any more is to be deleted, and one that is named exists."""
    files = [path for package in (app, jobs) for path in Path(package.__path__[0]).rglob("*.py")]
    named = {name for path in files for name in re.findall(r'QUERIES\["(\w+)"\]', path.read_text(encoding="utf-8"))}
    assert named | set(DECLARED) == set(QUERIES)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", HOT)
async def test_a_hot_query_uses_its_index(filled: asyncpg.Connection[Any], name: str, mode: str) -> None:
    """With the values at hand, and with the generic plan that a prepared statement may get after five runs."""
    await check_plan(filled, name, mode)


@pytest.mark.parametrize("index", sorted(set().union(*(indexes for _, indexes in HOT.values()))))
async def test_a_lost_index_is_noticed(filled: asyncpg.Connection[Any], index: str) -> None:
    """Without it the test above fails for every query that names it."""
    table = await filled.fetchval(
        "SELECT indrelid::regclass::text FROM pg_index WHERE indexrelid = $1::text::regclass", index
    )
    constraint = await filled.fetchval("SELECT conname FROM pg_constraint WHERE conindid = $1::text::regclass", index)
    for name in [name for name, (_, indexes) in HOT.items() if index in indexes]:
        async with rolled_back(filled):
            await filled.execute(
                f"ALTER TABLE {table} DROP CONSTRAINT {constraint}" if constraint else f"DROP INDEX {index}"
            )
            with pytest.raises((AssertionError, asyncpg.InvalidColumnReferenceError)):
                await check_plan(filled, name, "force_custom_plan")


@asynccontextmanager
async def rolled_back(connection: asyncpg.Connection[Any]) -> AsyncIterator[None]:
    transaction = connection.transaction()
    await transaction.start()
    try:
        yield
    finally:
        await transaction.rollback()
