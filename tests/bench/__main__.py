"""`make bench`: the HTTP endpoint beside a bare asyncpg upsert, alternating in one run.

Both write the same 1,000-item batches. The bare side has them as dictionaries, makes columns of them and sends one
prepared `INSERT … SELECT unnest … ON CONFLICT DO UPDATE` into a table with a column for each field: no HTTP, no
parsing, no validation, no idempotency, no history, no outbox, no answer. The endpoint does all of that, with one
destination that has deliveries to come.

The ratio is the endpoint's median against the bare upsert's over one connection, of the same round; the last column
is the bare upsert over as many connections as there are clients. The second table has processor time, which other work
on the machine disturbs less than it does the clock, and what was written to PostgreSQL's log.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import msgspec
import psutil
import uvloop

from tests.bench import rig

BATCH = 1_000

TABLE = """
CREATE TABLE bare (
    tenant_id int NOT NULL, record_id text COLLATE "C" NOT NULL, version bigint NOT NULL, source_version bigint,
    email text NOT NULL, first_name text, last_name text, phone text, company text, attributes jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(), updated_at timestamptz NOT NULL DEFAULT now(),
    job_id uuid NOT NULL, item_index int NOT NULL, prev_job_id uuid, prev_item_index int, mask smallint NOT NULL,
    PRIMARY KEY (tenant_id, record_id)
) WITH (fillfactor = 90)
"""
"""As contacts were stored when this measurement was first made."""

BARE = """
INSERT INTO bare (
    tenant_id, record_id, version, email, first_name, last_name, phone, company, attributes, job_id, item_index, mask
)
SELECT 1, t.id, 1, t.email, t.first_name, t.last_name, t.phone, t.company, t.attributes::jsonb,
    '00000000-0000-0000-0000-000000000000', 0, 0
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[])
    AS t(id, email, first_name, last_name, phone, company, attributes)
ON CONFLICT (tenant_id, record_id) DO UPDATE SET
    version = bare.version + 1, email = excluded.email, first_name = excluded.first_name,
    last_name = excluded.last_name, phone = excluded.phone, company = excluded.company,
    attributes = excluded.attributes, updated_at = now()
"""

STORED = """
SELECT
    pg_total_relation_size('records') / (SELECT count(*) FROM records),
    pg_total_relation_size('record_versions') / (SELECT sum(cardinality(v.indexes)) FROM record_versions v)::bigint
"""

Batch = list[dict[str, Any]]
Results = dict[tuple[str, int, str], list["Run"]]
"""By kind of write, number of clients, and side."""
Columns = tuple[list[Any], ...]


def columns(batch: Batch) -> Columns:
    """The batch as the bare statement takes it, ids sorted."""
    rows = sorted(batch, key=lambda item: item["id"])
    return (
        [r["id"] for r in rows],
        [r["email"] for r in rows],
        [r["first_name"] for r in rows],
        [r["last_name"] for r in rows],
        [r["phone"] for r in rows],
        [r["company"] for r in rows],
        [msgspec.json.encode(r["attributes"]).decode() for r in rows],
    )


async def timed(lanes: int, batches: list[Any], write: Callable[[int, Any], Awaitable[None]]) -> Run:
    """The batches shared out over the lanes."""

    async def lane(number: int) -> None:
        for batch in batches[number::lanes]:
            await write(number, batch)

    before = Times.read()
    started = time.perf_counter()
    await asyncio.gather(*(lane(number) for number in range(lanes)))
    elapsed = time.perf_counter() - started
    items = len(batches) * BATCH
    spent = Times.read().since(before)
    micro = 1e6 / items
    return Run(items / elapsed, Times(spent.api * micro, spent.postgres * micro, spent.client * micro))


class Times(msgspec.Struct):
    """Processor time so far, in seconds: of the API's processes, of PostgreSQL's, and of this one."""

    api: float
    postgres: float
    client: float

    @classmethod
    def read(cls) -> Times:
        own = psutil.Process()
        children = own.children(recursive=True)
        api = [child for child in children if "serve" in child.cmdline()]
        postgres = [child for child in children if child.name().startswith("postgres")]
        return cls(_spent(api), _spent(postgres), _spent([own]))

    def since(self, before: Times) -> Times:
        return Times(self.api - before.api, self.postgres - before.postgres, self.client - before.client)


def _spent(processes: list[psutil.Process]) -> float:
    return sum(times.user + times.system for times in (process.cpu_times() for process in processes))


class Run(msgspec.Struct):
    """Items a second, and microseconds of processor time per item."""

    rate: float
    spent: Times
    wal: float = 0.0
    """Bytes of write-ahead log per item."""


async def main(rounds: int, batches: int, api_workers: int) -> None:
    with tempfile.TemporaryDirectory(prefix="tranche-bench-") as folder:
        async with rig.installation(Path(folder) / "data", api_workers=api_workers) as (settings, url, key):
            # One more than write: it asks what they wrote.
            pool = await asyncpg.create_pool(settings.database_url, min_size=5, max_size=5, statement_cache_size=256)
            await pool.execute(TABLE)
            connections = [await pool.acquire() for _ in range(4)]

            async def bare(lane: int, batch: Batch) -> None:
                await connections[lane].execute(BARE, *columns(batch))

            async def logged(run: Awaitable[Run]) -> Run:
                """With what it wrote to the log."""
                before = await pool.fetchval("SELECT pg_current_wal_insert_lsn()")
                done = await run
                written = await pool.fetchval("SELECT pg_current_wal_insert_lsn() - $1::pg_lsn", before)
                return msgspec.structs.replace(done, wal=float(written) / (batches * BATCH))

            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=16)) as session:

                async def http(_: int, data: bytes) -> None:
                    await rig.post(session, url, key, data)

                results: Results = {}
                for number in range(-1, rounds):  # the round before the first warms up
                    for clients in (1, 4):
                        bare_ids = [rig.record_ids(BATCH) for _ in range(batches)]
                        many_ids = [rig.record_ids(BATCH) for _ in range(batches)]
                        http_ids = [rig.record_ids(BATCH) for _ in range(batches)]
                        for revision, kind in enumerate(("insert", "update")):

                            def made(ids: list[list[str]], revision: int = revision) -> list[Batch]:
                                return [rig.items(part, revision) for part in ids]

                            one = await logged(timed(1, made(bare_ids), bare))
                            endpoint = await logged(timed(clients, [rig.body(b) for b in made(http_ids)], http))
                            many = one
                            if clients > 1:
                                many = await timed(clients, made(many_ids), bare)
                            if number >= 0:
                                results.setdefault((kind, clients, "one"), []).append(one)
                                results.setdefault((kind, clients, "http"), []).append(endpoint)
                                results.setdefault((kind, clients, "many"), []).append(many)
                show(results, rounds, batches, api_workers)
                sizes = await pool.fetchrow(STORED)
                print("\nBytes stored with indexes: {} a record, {} a version.".format(*sizes))
            for connection in connections:
                await pool.release(connection)
            await pool.close()


def show(results: Results, rounds: int, batches: int, api_workers: int) -> None:
    print(f"\n{BATCH}-item batches, {batches} a measurement, median of {rounds} rounds, {api_workers} API processes\n")
    print("| write  | clients | endpoint, items/s | bare, 1 connection | ratio | bare, as many connections | ratio |")
    print("|--------|--------:|------------------:|-------------------:|------:|--------------------------:|------:|")
    for kind in ("insert", "update"):
        for clients in (1, 4):
            one, http, many = ([run.rate for run in results[kind, clients, side]] for side in ("one", "http", "many"))
            ratio = statistics.median(h / o for h, o in zip(http, one, strict=True))
            other = statistics.median(h / m for h, m in zip(http, many, strict=True))
            print(
                f"| {kind} | {clients:7} | {statistics.median(http):17,.0f} | {statistics.median(one):18,.0f} "
                f"| {ratio:5.2f} | {statistics.median(many):25,.0f} | {other:5.2f} |"
            )
    print("\nMicroseconds of processor time and bytes of write-ahead log per item, median:\n")
    print("| write  | clients | API | PostgreSQL | log | bare: client | bare: PostgreSQL | bare: log |")
    print("|--------|--------:|----:|-----------:|----:|-------------:|-----------------:|----------:|")
    for kind in ("insert", "update"):
        for clients in (1, 4):
            of = {side: [run.spent for run in results[kind, clients, side]] for side in ("http", "one")}
            api, postgres = (statistics.median(getattr(t, who) for t in of["http"]) for who in ("api", "postgres"))
            bare, beside = (statistics.median(getattr(t, who) for t in of["one"]) for who in ("client", "postgres"))
            log, bare_log = (statistics.median(r.wal for r in results[kind, clients, side]) for side in ("http", "one"))
            print(
                f"| {kind} | {clients:7} | {api:.1f} | {postgres:.1f} | {log:.0f} | {bare:.1f} | {beside:.1f} "
                f"| {bare_log:.0f} |"
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batches", type=int, default=24)
    parser.add_argument("--api-workers", type=int, default=2)
    arguments = parser.parse_args()
    uvloop.run(main(arguments.rounds, arguments.batches, arguments.api_workers))
