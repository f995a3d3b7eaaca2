"""A table of the tenant's own in PostgreSQL: one row for each record, by upsert on the column with our key.

A call is one transaction (`jobs.crm.postgres.statements` has its statements):

    BEGIN; SET LOCAL …; SAVEPOINT s
    SELECT … FROM pg_catalog.pg_attribute …         the columns and their types
    INSERT INTO people … SELECT … FROM jsonb_to_recordset($1) ON CONFLICT (id) DO UPDATE … RETURNING …
    COMMIT

Where PostgreSQL refuses the batch, halves of it show which records are to blame, each after a return to the savepoint;
the others are written. Nothing is done unless COMMIT was sent: a connection that is lost before leaves nobody in doubt.

What nobody named is in no statement; `null` is what was cleared. The options are
`app.destinations.kinds.PostgresOptions`.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeVar, Unpack

import msgspec

from app.destinations.credentials import BasicCredentials
from app.destinations.kinds import PostgresOptions
from app.destinations.options import read_options
from app.destinations.testing.rules import Step
from app.resources.declaration import Resource
from app.tracing import spans
from app.tracing.spans import Kind
from app.vocabulary.states import EffectState, ErrorCode
from jobs.crm.answers import Verdict, unlisted, with_remedy
from jobs.crm.exchange import NoAnswer
from jobs.crm.mapping import FieldMap
from jobs.crm.port import (
    Access,
    CrmFactory,
    Difference,
    Headers,
    Health,
    Keep,
    Listing,
    Outcome,
    ReadBack,
    Reply,
    Seen,
    SentRecord,
    keep_nothing,
)
from jobs.crm.postgres import check
from jobs.crm.postgres.answers import CANCELED, Blame, Failure, Place, PostgresJudge, unavailable
from jobs.crm.postgres.catalog import Table, literal, quote_table, read_table
from jobs.crm.postgres.connections import Connections, Lost, Session
from jobs.crm.postgres.statements import PAGE, Shape, Statements
from jobs.crm.postgres.wire import ServerError
from jobs.outbound.ssrf import GuardedConnector
from jobs.outbound.tracebacks import drop_tracebacks

BATCH_SIZE: Final = 500
_SHORT_LOCK: Final = 0.1
"""Seconds that a part of a batch waits for a lock, when the whole waited in vain."""
_LONGEST_LOCK: Final = 2.0
_HALVING: Final = 0.7
"""Share of the total timeout after which no more halves are tried."""
_encode: Final = msgspec.json.Encoder(decimal_format="number").encode
_decode: Final = msgspec.json.Decoder(list[tuple[str, str | None, str | None]]).decode

T = TypeVar("T")
Row = tuple[int, dict[str, Any]]
"""The position of a record in its call, and its values by their place in the statement."""


class SetupError(Exception):
    """The table is not as the records need it."""

    def __init__(self, detail: str, remedy: str) -> None:
        super().__init__(detail)
        self.verdict = Verdict(health=Health.SETUP_FAULT, detail=with_remedy(detail, remedy))


class Postgres:
    """One tenant's connection to one table (`jobs.crm.port.Crm`)."""

    reads_back = True
    repeatable = False
    appends = False
    archives = True
    lists = True
    bulk = None
    updates_apart = False
    write_test = None
    learns = True  # its connections are kept

    def __init__(self, *, resource: Resource, options: dict[str, Any], **access: Unpack[Access]) -> None:
        chosen = self._options = read_options(options, PostgresOptions)
        self.batch_size = chosen.batch_size or BATCH_SIZE
        self._resource = resource
        self._timeouts = access["timeouts"]
        credentials = access["authorizer"].credentials
        if not isinstance(credentials, BasicCredentials):
            raise ValueError("the credentials must be a user and a password (basic)")
        user, password = credentials.username, credentials.password
        connector = access["session"].connector
        if not isinstance(connector, GuardedConnector):
            raise TypeError("the session has no guarded connector")
        self._connections = Connections(
            connector,
            access["base_url"],
            user=user,
            password=password,
            mode=chosen.sslmode,
            roots=chosen.ssl_root_certificate,
            timeout=self._timeouts.connect,
        )
        self._table = quote_table(chosen.table.replace("{type}", resource.name))
        self._place = Place(self._table, user, chosen.key_column, deletes=chosen.deleted_column is None)
        # With a column for attributes only those that `columns` names have one of their own.
        name_of = str if chosen.attributes_column is None else lambda _: None
        self._map = FieldMap(chosen, resource, key=chosen.key_column, name_of=name_of)
        self._named = chosen.fields_of(resource.name)
        filled = {*self._map.mapped, *chosen.taken()}
        self._judge = PostgresJudge(access["authorizer"], lambda: datetime.now(UTC), filled)

    async def push(self, records: list[SentRecord], headers: Headers, keep: Keep = keep_nothing) -> Reply:
        """See `jobs.crm.port.Crm.push`. Nothing is looked for: a row with our key is ours to write."""

        async def write(session: Session, statements: Statements, batch: "Batch") -> list[Outcome]:
            for shape, rows in self._shapes(records, statements).items():
                await batch.apply(session, statements.upsert(shape), rows)
            return batch.outcomes()

        return await self._reply("INSERT", records, headers, write)

    async def archive(self, records: list[SentRecord], headers: Headers) -> Reply:
        """See `jobs.crm.port.Crm.archive`. A row that is not there is well."""

        async def remove(session: Session, statements: Statements, batch: "Batch") -> list[Outcome]:
            rows = [(n, self._row([record.record_id], record)) for n, record in enumerate(records)]
            await batch.apply(session, statements.delete(), rows)
            return batch.outcomes()

        return await self._reply("DELETE", records, headers, remove)

    async def read_back(self, records: list[SentRecord], headers: Headers, *, by_fields: bool = False) -> ReadBack:
        """See `jobs.crm.port.Crm.read_back`."""
        if not records:
            return ReadBack(seen={}, health=Health.WELL)
        started = time.monotonic()

        async def read(session: Session, table: Table) -> Look:
            statements = self._statements(table, records)
            look = Look(records, session, self._judge, self._options.attributes_column)
            deleted = [(n, self._row([record.record_id])) for n, record in enumerate(records) if record.deleted]
            await look.take(statements.read(None), statements.read(None), deleted, Seen.DIFFERS)
            for shape, rows in self._shapes(records, statements).items():
                statement = statements.read(shape, by_fields=by_fields)
                await look.take(statement, statements.read(None), rows, Seen.MATCHES)
            return look

        found = await self._transact("SELECT", headers, read)
        if isinstance(found, Failure):
            return self._judge.unread(found)
        seconds = time.monotonic() - started
        return ReadBack(
            seen=found.seen, remote_ids=found.keys, differences=found.differ, health=Health.WELL, seconds=seconds
        )

    async def list_keys(self, after: str | None, headers: Headers) -> Listing:
        """A page in the order of the keys; see `jobs.crm.port.Crm.list_keys`."""
        started = time.monotonic()

        async def read(session: Session, table: Table) -> list[str]:
            rows = await session.fetch(self._statements(table, []).keys(first=after is None), after or "")
            return [row["key"] for row in rows]

        found = await self._transact("SELECT", headers, read)
        if isinstance(found, Failure):
            return unlisted(self._judge.unread(found))
        last = found[-1] if len(found) == PAGE else None
        seconds = time.monotonic() - started
        return Listing(keys={key: key for key in found}, after=last, health=Health.WELL, seconds=seconds)

    async def check(self, headers: Headers) -> list[Step]:
        """See `jobs.crm.postgres.check`."""
        looked = check.Check(self._options, self._resource, self._map, self._place)

        async def look(session: Session, table: Table) -> None:
            await looked.run(session, table, self._statements(table, []), self._judge)

        found = await self._transact("EXPLAIN", headers, look, on_session=looked.connected)
        return looked.finish(found.verdict.detail if isinstance(found, Failure) else None)

    async def _reply(
        self,
        operation: str,
        records: list[SentRecord],
        headers: Headers,
        write: Callable[[Session, Statements, "Batch"], Awaitable[list[Outcome]]],
    ) -> Reply:
        if not records:
            return Reply(outcomes=[], health=Health.WELL)
        started = time.monotonic()

        async def work(session: Session, table: Table) -> list[Outcome]:
            batch = Batch(records, self._judge, until=started + _HALVING * self._timeouts.total)
            return await write(session, self._statements(table, records), batch)

        found = await self._transact(operation, headers, work)
        if isinstance(found, Failure):
            return self._judge.reply(records, found)
        return Reply(outcomes=found, health=Health.WELL, seconds=time.monotonic() - started)

    async def _transact(
        self,
        operation: str,
        headers: Headers,
        work: Callable[[Session, Table], Awaitable[T]],
        *,
        on_session: Callable[[Session], None] = lambda _: None,
    ) -> T | Failure:
        """What `work` gives in one transaction. Nothing that PostgreSQL or the network does is raised."""
        started = time.monotonic()
        session: Session | None = None
        attributes = {"db.system.name": "postgresql", "db.operation.name": operation}
        with spans.span(operation, Kind.CLIENT, headers.trace, attributes) as span:
            try:
                async with asyncio.timeout(self._timeouts.total):
                    async with self._connections.transaction(self._begin(headers)) as session:
                        on_session(session)
                        table = await read_table(session, self._table)
                        if table is None:
                            missing = f"PostgreSQL has no table {self._table}, or shows the user none"
                            raise SetupError(missing, self._place.missing)
                        result = await work(session, table)
                        await session.commit()
                        return result
            except SetupError as error:
                verdict, timed_out = error.verdict, False
            except ServerError as error:
                verdict, timed_out = self._judge.judge(error, self._place), error.code == CANCELED
                drop_tracebacks(error)
            except (Lost, TimeoutError) as error:
                seconds = time.monotonic() - started
                sent = session is not None and session.committing
                verdict, timed_out = self._lost(error, seconds, sent=sent), isinstance(error, TimeoutError)
                drop_tracebacks(error)
            span.fail("refused" if verdict.health is Health.WELL else verdict.health.value)
        seconds = time.monotonic() - started
        return Failure(verdict=verdict, sent=False, detail=verdict.detail, seconds=seconds, timed_out=timed_out)

    def _lost(self, error: Lost | TimeoutError, seconds: float, *, sent: bool) -> Verdict:
        if not isinstance(error, Lost):
            detail = f"timed out after {seconds:.1f} s"
            return self._judge.verdict(NoAnswer(sent=sent, detail=detail, seconds=seconds, timed_out=True))
        if error.misconfigured:
            return Verdict(health=Health.CONNECTION_FAULT, detail=self._judge.words(f"no connection: {error.detail}"))
        return self._judge.verdict(NoAnswer(sent=sent, detail=error.detail, seconds=seconds, refused=error.refused))

    def _begin(self, headers: Headers) -> str:
        """All limits are the transaction's own: a pooler hands its connections on to others."""
        total, lock = self._timeouts.total, min(_LONGEST_LOCK, self._timeouts.total / 4)
        request = "".join(c for c in headers.request_id if c.isascii() and c.isprintable())
        settings = {
            "statement_timeout": str(round(total * 1000)),
            "idle_in_transaction_session_timeout": str(round(total * 1000)),
            "lock_timeout": str(round(lock * 1000)),
            "timezone": "UTC",
            "datestyle": "ISO, YMD",
            "application_name": f"tranche {request}"[:63],
        }
        sets = "; ".join(f"SET LOCAL {name} = {literal(value)}" for name, value in settings.items())
        # Constraints that wait for COMMIT would refuse all records, and not say which is to blame.
        return f"BEGIN ISOLATION LEVEL READ COMMITTED; {sets}; SET CONSTRAINTS ALL IMMEDIATE; SAVEPOINT s"

    def _statements(self, table: Table, records: Sequence[SentRecord]) -> Statements:
        """Raises `SetupError`: the table lacks a column that these records need."""
        options = self._options
        own = {name: getattr(options, name) for name in ("key_column", *check.OPTIONAL_COLUMNS)}
        for option, name in own.items():
            if name is not None and name not in table.columns:
                raise SetupError(self._no_column(name), self._place.lacks(name, None, option))
        for name in self._map.names(record for record in records if not record.deleted):
            if name not in table.columns:
                ours = self._map.source_of(name, records)
                raise SetupError(self._no_column(name), self._place.lacks(name, ours, None))
        return Statements(table, options, self._map.folded)

    def _no_column(self, name: str) -> str:
        return self._judge.words(f"PostgreSQL's table {self._table} has no column {name!r}")

    def _shapes(self, records: Iterable[SentRecord], statements: Statements) -> dict[Shape, list[Row]]:
        """The records by the columns that they name; each is written by a statement for these."""
        found: dict[Shape, list[Row]] = {}
        nested = self._options.attributes_column
        for n, record in enumerate(records):
            if record.deleted:
                continue
            values = self._map.sources(record)
            key = values.pop(self._options.key_column)
            names = tuple(sorted(values))
            members = [key, *(values[name] for name in names)]
            removed: tuple[str, ...] = ()
            rest = {} if nested is None else {k: v for k, v in record.attributes.items() if k not in self._named}
            if rest:
                removed = tuple(sorted(name for name, value in rest.items() if value is None))
                members.append({name: value for name, value in rest.items() if value is not None})
            found.setdefault(Shape(names, bool(rest), removed), []).append((n, self._row(members, record)))
        return found

    def _row(self, members: list[Any], record: SentRecord | None = None) -> dict[str, Any]:
        if record is not None and self._options.version_column is not None:
            members.append(record.version)
        return {f"c{n}": value for n, value in enumerate(members)}


class Batch:
    """The outcomes of a call that writes, as they become known. `until`: no more halves are tried then."""

    def __init__(self, records: list[SentRecord], judge: PostgresJudge, *, until: float) -> None:
        self._records = records
        self._judge = judge
        self._until = until
        self._outcomes: dict[int, Outcome] = {}
        self._back = "ROLLBACK TO s"
        self._written = False
        """Something was since the savepoint."""
        self._lacks: ServerError | None = None
        """What says that a record was refused because of the table, and not of itself."""

    def outcomes(self) -> list[Outcome]:
        """In the order of the records. Raises `ServerError`: nothing was written, because of the table."""
        found = [self._outcomes[n] for n in range(len(self._records))]
        if self._lacks is not None and not any(outcome.state is EffectState.OK for outcome in found):
            raise self._lacks
        return found

    async def apply(self, session: Session, statement: str, rows: list[Row]) -> None:
        """Rows whose columns are the same; parts of them where PostgreSQL refuses all. Raises `ServerError`: no part
        of them would do better."""
        parts = [rows]
        while parts:
            part = parts.pop()
            if parts and time.monotonic() > self._until:
                self._settle([part, *parts], *unavailable("there was no time to find the faulty records of its batch"))
                return
            try:
                if self._written:
                    await session.execute("RELEASE s; SAVEPOINT s")
                    self._written = False
                answers = await session.fetch(statement, pack(part))
            except ServerError as error:
                await self._refuse(session, error, statement, part, parts)
                continue
            self._written = True
            for answer in answers:
                record_id = self._records[answer["n"]].record_id
                created = answer.get("created")
                self._outcomes[answer["n"]] = Outcome(
                    record_id, EffectState.OK, remote_id=answer["key"], created=created
                )

    async def _refuse(
        self, session: Session, error: ServerError, statement: str, part: list[Row], parts: list[list[Row]]
    ) -> None:
        to_blame = self._judge.blame(error)
        if to_blame not in (Blame.RECORD, Blame.LOCK, Blame.SETUP):
            raise error
        if to_blame is Blame.LOCK:
            self._back = f"ROLLBACK TO s; SET LOCAL lock_timeout = {round(_SHORT_LOCK * 1000)}"
        await session.execute(self._back)
        if to_blame is Blame.SETUP and len(part) > 1 and self._lacks is None:
            await self._try_ends(session, statement, part)
        if len(part) > 1:
            middle = len(part) // 2
            parts += [part[middle:], part[:middle]]
            return
        if to_blame is Blame.SETUP:
            self._lacks = error
        words = self._judge.refused(error)
        if to_blame is Blame.LOCK:
            self._settle([part], *unavailable(words))
        else:
            self._settle([part], EffectState.FAILED, ErrorCode.DESTINATION_REJECTED, words)

    async def _try_ends(self, session: Session, statement: str, part: list[Row]) -> None:
        """Where the first and the last record meet the same alone, all would. Raises `ServerError`: so it is."""
        for row in (part[0], part[-1]):
            try:
                await session.fetch(statement, pack([row]))
            except ServerError as error:
                if self._judge.blame(error) is not Blame.SETUP:
                    return
                last = error
            else:
                return
            finally:
                await session.execute(self._back)
        raise last

    def _settle(self, parts: list[list[Row]], state: EffectState, code: ErrorCode, detail: str) -> None:
        for n, _ in (row for part in parts for row in part):
            self._outcomes[n] = Outcome(self._records[n].record_id, state, code, detail)


class Look:
    """What a read-back finds."""

    def __init__(
        self, records: list[SentRecord], session: Session, judge: PostgresJudge, attributes_column: str | None
    ) -> None:
        self._records = records
        self._session = session
        self._judge = judge
        self._nested = attributes_column
        self.seen: dict[str, Seen] = {}
        self.keys: dict[str, str] = {}
        self.differ: dict[str, list[Difference]] = {}

    async def take(self, statement: str, by_key: str, rows: list[Row], there: Seen) -> None:
        """Look for rows; `there`: what one is that has the values of its record. One whose values PostgreSQL does not
        take cannot have them, and one whose key it does not take is not there."""
        parts = [rows] if rows else []
        while parts:
            part = parts.pop()
            try:
                answers = await self._session.fetch(statement, pack(part))
            except ServerError as error:
                if self._judge.blame(error) is not Blame.RECORD:
                    raise
                await self._session.execute("ROLLBACK TO s")
                if len(part) > 1:
                    middle = len(part) // 2
                    parts += [part[middle:], part[:middle]]
                elif statement == by_key:
                    self.seen[self._records[part[0][0]].record_id] = Seen.ABSENT
                else:
                    await self.take(by_key, by_key, part, Seen.DIFFERS)
                continue
            for answer in answers:
                record_id = self._records[answer["n"]].record_id
                if answer["key"] is None:
                    self.seen[record_id] = Seen.ABSENT
                    continue
                self.seen[record_id] = there if answer["matches"] else Seen.DIFFERS
                self.keys[record_id] = answer["key"]
                if answer["unlike"] is not None:
                    self.differ[record_id] = list(self._differences(_decode(answer["unlike"])))

    def _differences(self, unlike: list[tuple[str, str | None, str | None]]) -> Iterator[Difference]:
        """Those of a column with attributes one by one, as far as we have them."""
        for name, ours, theirs in unlike:
            if name != self._nested:
                yield Difference(name, ours, theirs)
                continue
            try:
                here, there = (msgspec.json.decode(value or "{}") for value in (ours, theirs))
            except (ValueError, RecursionError):  # jsonb holds numbers and depths that others do not read
                yield Difference(name, ours, theirs)
                continue
            held = there if isinstance(there, dict) else {}
            for key, value in here.items():
                if held.get(key) != value:
                    yield Difference(f"{name}.{key}", value, held.get(key))


def pack(rows: list[Row]) -> str:
    return _encode([{"n": n, **values} for n, values in rows]).decode()


connect: Final[CrmFactory] = Postgres
