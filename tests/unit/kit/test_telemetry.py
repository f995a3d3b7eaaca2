"""The log: errors are described without the data that PostgreSQL names in them."""

from __future__ import annotations

import io
import sys
from typing import Any

import asyncpg
import pytest
import structlog

from app.settings import Settings
from app.telemetry import configure


async def failing(url: str, query: str, *arguments: Any) -> Exception:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("CREATE TEMP TABLE people (email text PRIMARY KEY, age int CHECK (age > 0))")
        await connection.execute("INSERT INTO people VALUES ('canary@example.com', 1)")
        try:
            await connection.execute(query, *arguments)
        except Exception as error:
            return error
    finally:
        await connection.close()
    raise AssertionError("it did not fail")


@pytest.mark.parametrize("log_format", ["json", "console"])
@pytest.mark.parametrize(
    ("query", "arguments", "named"),
    [
        ("INSERT INTO people VALUES ('canary@example.com', 2)", (), "UniqueViolationError"),
        ("INSERT INTO people VALUES ('other-canary', -1)", (), "CheckViolationError"),
        ("SELECT 'canary'::int", (), "InvalidTextRepresentationError"),
        ("SELECT $1::int", ("canary",), "DataError"),
        ("SELECT no_such_column FROM people", (), "no_such_column"),
    ],
)
async def test_an_error_of_postgresql_names_no_value(
    database_url: str, monkeypatch: pytest.MonkeyPatch, query: str, arguments: Any, named: str, log_format: str
) -> None:
    error = await failing(database_url, query, *arguments)
    before = structlog.get_config()
    written = io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    try:
        configure(Settings(log_format=log_format))
        log = structlog.get_logger()
        log.warning("short", error=error)
        try:
            raise RuntimeError("around it") from error
        except RuntimeError:
            log.exception("long")
        try:
            raise ExceptionGroup("several", [error])
        except ExceptionGroup:
            log.exception("group")
    finally:
        structlog.configure(**before)
    text = written.getvalue()
    assert text.count(named) >= 3
    assert "around it" in text
    assert "test_telemetry.py" in text, "the traceback names where"
    assert "canary" not in text, text
