"""A real PostgreSQL as the case of its kind: a database with tables that book what is done to their rows, a user with
the rights of the documentation, and a proxy in front of it that loses what a network loses."""

from __future__ import annotations

import asyncio
import re
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import urlsplit

import asyncpg
import msgspec
import pytest

from app.embedded import Engines
from tests.conftest import new_database
from tests.contract.fault_proxy import FaultProxy, reset

OPTIONS: Final[dict[str, Any]] = {"table": "crm.{type}", "version_column": "version", "attributes_column": "attributes"}
TABLES: Final = {
    "contacts": 'email text, first_name text, last_name text, phone text, company text, "Work_Phone__c" text, '
    '"Tier__c" text',
    "companies": "name text, domain text, phone text, industry text, street text, city text, postal_code text, "
    "country text, employees int, annual_revenue numeric",
    "order-lines": "title text, price numeric(12,2), count int, open boolean, tags text[], due date",
}
GRANTS: Final = """
GRANT USAGE ON SCHEMA crm TO {user};
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA crm TO {user};
"""
_SETUP: Final = """
CREATE SCHEMA crm;
CREATE SCHEMA evidence;
CREATE TABLE evidence.effects (
    seq bigint GENERATED ALWAYS AS IDENTITY, object text, key text, properties jsonb, created boolean, deleted boolean,
    request_id text, by text
);
CREATE TABLE evidence.refusals (keys text[], emails text[], message text, passing boolean);
CREATE FUNCTION evidence.refuse() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE r record;
BEGIN
    FOR r IN SELECT * FROM evidence.refusals LOOP
        IF keys_or_emails(r.keys, r.emails, NEW.id, to_jsonb(NEW) ->> 'email') THEN
            RAISE EXCEPTION '%', r.message USING ERRCODE = CASE WHEN r.passing THEN '55P03' ELSE 'P0001' END;
        END IF;
    END LOOP;
    RETURN NEW;
END $$;
CREATE FUNCTION keys_or_emails(keys text[], emails text[], key text, email text) RETURNS boolean LANGUAGE sql AS $$
    SELECT cardinality(keys) + cardinality(emails) = 0 OR key = ANY (keys) OR coalesce(email = ANY (emails), false)
$$;
CREATE FUNCTION evidence.book() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE r jsonb;
BEGIN
    IF TG_OP = 'DELETE' THEN r := to_jsonb(OLD); ELSE r := to_jsonb(NEW); END IF;
    INSERT INTO evidence.effects (object, key, properties, created, deleted, request_id, by)
    VALUES (TG_TABLE_NAME, r ->> 'id', jsonb_strip_nulls(r), TG_OP = 'INSERT', TG_OP = 'DELETE',
        substr(current_setting('application_name'), 9),
        CASE WHEN session_user = current_user THEN 'user' ELSE 'api' END);
    RETURN NULL;
END $$;
"""
_TABLE: Final = """
CREATE TABLE crm."{name}" (id text PRIMARY KEY, version bigint, attributes jsonb, {columns});
CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON crm."{name}" FOR EACH ROW EXECUTE FUNCTION evidence.refuse();
CREATE TRIGGER book AFTER INSERT OR UPDATE OR DELETE ON crm."{name}" FOR EACH ROW EXECUTE FUNCTION evidence.book();
"""
_SSL_REQUEST: Final = 80877103
_APPLICATION: Final = re.compile(r"application_name = E'tranche ([^']*)'")
_WRITES: Final = re.compile(r"INSERT INTO|DELETE FROM|UPDATE ")
_GARBAGE: Final = {
    "truncated": b"C\0\0\0\x0b",
    "cut": b"C\0\0",
    "html": b"<html><body>All is well.</body></html>",
    "empty": b"",
    "shape": b"T\0\0\0\x06\xff\xff" + b"Z\0\0\0\x05Q",
    "deep": b"[" * 10_000,
    "huge": b"D\x7f\xff\xff\xff" + b" " * 9_000_000,
}


class Proxy(FaultProxy):
    """Between an adapter and PostgreSQL."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self.target_port = port

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream: asyncio.StreamWriter | None = None
        pump: asyncio.Task[None] | None = None
        try:
            if self.strike("down", None) is not None:
                reset(writer)
                return
            length, code = struct.unpack("!ii", await reader.readexactly(8))
            if code == _SSL_REQUEST:
                writer.write(b"N")  # as a server without TLS
                length, code = struct.unpack("!ii", await reader.readexactly(8))
            answers, upstream = await asyncio.open_connection(*self._target)
            upstream.write(struct.pack("!ii", length, code) + await reader.readexactly(length - 8))
            held: list[dict[str, Any]] = []
            pump = asyncio.create_task(self._pump(answers, writer, held))
            await self._listen(reader, writer, upstream, held)
        finally:
            if upstream is not None:
                upstream.close()
            if pump is not None:
                pump.cancel()

    async def _listen(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        upstream: asyncio.StreamWriter,
        held: list[dict[str, Any]],
    ) -> None:
        call: dict[str, Any] = {"on": None, "faults": []}
        counted = False
        try:
            while True:
                kind, length = struct.unpack("!ci", await reader.readexactly(5))
                payload = await reader.readexactly(length - 4)
                text = payload.decode(errors="replace")
                if kind == b"Q" and text.startswith("BEGIN"):
                    named = _APPLICATION.search(text)
                    call = {"request_id": named[1] if named else "", "on": "read", "faults": [], "answered": False}
                    self.calls.append(call)
                    counted = True
                    self.in_flight += 1
                    self.max_concurrent = max(self.max_concurrent, self.in_flight)
                    if self.faults.get("drop_before", {}).get("on") == "any":
                        self.strike("drop_before", None, call)
                        return
                if kind == b"P" and "jsonb_to_recordset" in text:
                    if _WRITES.search(text) and "\0EXPLAIN" not in text:
                        call["on"] = "write"
                    if self.strike("down", call["on"], call) is not None:
                        reset(writer)
                        return
                    if self.strike("drop_before", call["on"], call) is not None:
                        return
                if kind == b"Q" and text.startswith("COMMIT"):
                    held.append(call)
                    counted = False
                    self.in_flight -= 1
                upstream.write(kind + struct.pack("!i", length) + payload)
        finally:
            self.in_flight -= counted

    async def _pump(
        self, answers: asyncio.StreamReader, writer: asyncio.StreamWriter, held: list[dict[str, Any]]
    ) -> None:
        """What PostgreSQL answers; `held`: COMMIT was the last thing that it was sent."""
        while data := await answers.read(65_536):
            if held:
                call = held.pop()
                if (late := self.strike("latency", call["on"])) is not None:
                    await asyncio.sleep(late["latency"])
                if (slow := self.strike("slow", call["on"], call)) is not None:
                    await asyncio.sleep(slow["latency"])
                if self.strike("accept_then_drop", call["on"], call) is not None:
                    writer.close()
                    return
                if (garbage := self.strike("garbage", call["on"], call)) is not None:
                    writer.write(_GARBAGE[garbage["mode"]])
                    writer.close()
                    return
                call["answered"] = True
            writer.write(data)
        writer.close()


class PostgresCase:
    """What `tests.contract.conftest.Sandbox` is for a stand-in: evidence and faults."""

    kind = "postgres"
    locks_calls = False

    def __init__(self, owner: asyncpg.Connection, owner_url: str, proxy: Proxy, user: str, password: str) -> None:
        self.owner = owner
        self.owner_url = owner_url
        self.proxy = proxy
        self.user = user
        self.password = password
        self._locker: asyncpg.Connection | None = None

    @property
    def url(self) -> str:
        return f"postgresql://127.0.0.1:{self.proxy.port}{urlsplit(self.owner_url).path}"

    async def get(self, path: str) -> dict[str, Any]:
        name, _, query = path.partition("?object=")
        match name:
            case "contacts":
                table = query or "contacts"
                rows = await self.owner.fetch(f'SELECT to_jsonb(t) AS row FROM crm."{table}" t')
                held = [msgspec.json.decode(row["row"]) for row in rows]
                records = [{"key": r["id"], "id": r["id"], "object": table, "properties": _filled(r)} for r in held]
                return {"contacts": records, "total": len(records)}
            case "calls":
                return {"calls": self.proxy.calls, "max_concurrent": self.proxy.max_concurrent}
        pytest.skip(f"PostgreSQL has no {name}")

    async def effects(self) -> list[dict[str, Any]]:
        rows = await self.owner.fetch("SELECT * FROM evidence.effects ORDER BY seq")
        more: dict[str, Any] = {"changed": True}
        return [
            dict(row) | more | {"id": row["key"], "properties": msgspec.json.decode(row["properties"])} for row in rows
        ]

    async def calls(self) -> list[dict[str, Any]]:
        return self.proxy.calls

    async def faults(self, **faults: dict[str, Any]) -> None:
        """Exactly these from now on; those that PostgreSQL cannot have skip the test."""
        await self.owner.execute("DELETE FROM evidence.refusals")
        await self.unlock()
        self.proxy.faults = {}
        for kind, fault in faults.items():
            match kind:
                case "down" | "drop_before" | "accept_then_drop" | "slow" | "latency" | "garbage":
                    self.proxy.faults[kind] = dict(fault)
                case "refuse":
                    await self.proxy.refuse(fault["seconds"])
                case "reject":
                    await self.owner.execute(
                        "INSERT INTO evidence.refusals VALUES ($1, $2, $3, $4)",
                        fault.get("keys", []),
                        fault.get("emails", []),
                        fault.get("message", "no"),
                        fault.get("passing", False),
                    )
                case "lock":
                    await self.lock()
                case "missing_fields":
                    for name in fault["names"]:
                        await self.owner.execute(f'ALTER TABLE crm.contacts DROP COLUMN "{name}"')
                case _:
                    pytest.skip(f"PostgreSQL has no answer like {kind}")

    async def lock(self) -> None:
        """Somebody else holds the rows."""
        self._locker = await asyncpg.connect(self.owner_url)
        await self._locker.execute("BEGIN; LOCK TABLE crm.contacts IN EXCLUSIVE MODE")

    async def unlock(self) -> None:
        if self._locker is not None:
            await self._locker.close()
            self._locker = None

    async def edit(self, key_property: str, key: str, properties: dict[str, Any]) -> None:
        values = {**properties, key_property: key}
        names = ", ".join(f'"{name}"' for name in values)
        sets = ", ".join(f'"{name}" = excluded."{name}"' for name in values)
        await self.owner.execute(
            f"INSERT INTO crm.contacts ({names}) SELECT {names} FROM jsonb_populate_record(NULL::crm.contacts, $1) "
            f'ON CONFLICT ("{key_property}") DO UPDATE SET {sets}',
            msgspec.json.encode(values).decode(),
        )

    async def remove(self, record_id: str) -> None:
        await self.owner.execute("DELETE FROM crm.contacts WHERE id = $1", record_id)

    async def wait_for_lock(self) -> None:
        """Until somebody waits for a lock."""
        until = time.monotonic() + 10
        while time.monotonic() < until:
            if await self.owner.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                return
            await asyncio.sleep(0.01)
        raise AssertionError("nobody waits")


def _filled(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if value is not None}


@asynccontextmanager
async def open_postgres(engines: Engines, password: str) -> AsyncIterator[PostgresCase]:
    async with new_database(engines) as owner_url:
        owner = await asyncpg.connect(owner_url)
        user = f"sync_{urlsplit(owner_url).path.strip('/')}"
        await owner.execute(f"CREATE ROLE {user} LOGIN PASSWORD '{password}'")
        try:
            await owner.execute(_SETUP)
            for name, columns in TABLES.items():
                await owner.execute(_TABLE.format(name=name, columns=columns))
            await owner.execute(GRANTS.format(user=user))
            parts = urlsplit(owner_url)
            proxy = Proxy(str(parts.hostname), parts.port or 5432)
            await proxy.start()
            case = PostgresCase(owner, owner_url, proxy, user, password)
            try:
                yield case
            finally:
                await case.unlock()
                await proxy.stop()
        finally:
            await owner.execute(f"DROP OWNED BY {user}; DROP ROLE {user}")
            await owner.close()


__all__ = ["OPTIONS", "TABLES", "PostgresCase", "Proxy", "open_postgres"]
