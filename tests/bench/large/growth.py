"""How the import's rate depends on how many contacts there are already.

Every size is brought about in the same way: contacts are added by SQL, with random ids of the same form, in portions
sorted by id, into the table with its index as it grows; then VACUUM ANALYZE and a CHECKPOINT, so that none runs on its
own while files are imported. After a checkpoint PostgreSQL writes each page whole at its first change
(full_page_writes): that is the largest price of a large index. It is paid once a checkpoint, so the first file after it
pays most; the files of a size follow one another, as the parts of a longer import do.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from pathlib import Path

import msgspec

from tests.bench.large import files
from tests.bench.large.site import Site
from tests.bench.large.tables import show

GOAL = 0.7
PORTION = 500_000
_SEED = 1_000

# Random ids and fields as those of tests.bench.large.files; the history is not filled, nobody looks there.
_FILL = """
INSERT INTO records (tenant_id, type_id, record_id, version, document, job_id, item_index)
SELECT
    (SELECT tenant_id FROM tenants WHERE name = 'acme'), 1, i.id, 1,
    jsonb_build_object(
        'email', i.id || '@example.com', 'first_name', 'Sheryl', 'last_name', 'Baxter',
        'phone', '(496)978-3969x58947', 'company', 'Rasmussen Group',
        'attributes.city', 'East Leonard', 'attributes.country', 'Chile', 'attributes.phone_2', '+1-496-978-3969',
        'attributes.subscribed', '2020-08-24',
        'attributes.website', 'https://www.stephenson-' || left(i.id, 10) || '.com/'
    ),
    '00000000-0000-0000-0000-000000000000', i.n
FROM (
    SELECT n, substr(md5(random()::text || n::text), 1, 16) COLLATE "C" AS id FROM generate_series(1, $1::int) n
) i
ORDER BY i.id
"""
_WORK = """
SELECT
    (SELECT wal_bytes FROM pg_stat_wal)::float8 AS wal, (SELECT wal_fpi FROM pg_stat_wal)::float8 AS pages,
    coalesce(sum(reads), 0)::float8 AS reads, coalesce(sum(writes), 0)::float8 AS writes
FROM pg_stat_io WHERE backend_type = 'client backend' AND object = 'relation'
"""


class Sample(msgspec.Struct):
    rate: float
    wal: float
    """Bytes a row."""
    pages: float
    """Whole pages in the WAL, for each row."""
    reads: float
    """From outside PostgreSQL's own buffers, for each row."""


async def fill(site: Site, count: int) -> None:
    """Bring the table to this many contacts; it holds fewer."""
    (held,) = await site.execute("SELECT count(*) AS n FROM records")
    for start in range(held["n"], count, PORTION):
        await site.execute(_FILL, min(PORTION, count - start))
    if held["n"] < count:
        await site.execute("VACUUM (ANALYZE) records")
        await site.execute("CHECKPOINT")


async def sample(site: Site, folder: Path, count: int, seed: int) -> Sample:
    """One file of new contacts."""
    path = files.write(folder, "csv", count, seed)
    (before,) = await site.execute(_WORK)
    upload = await site.upload(path)
    applied, _ = await site.applied(upload, every=0.2)
    path.unlink()
    # A backend tells what it did a second later.
    await asyncio.sleep(1.2)
    (after,) = await site.execute(_WORK)
    done = {name: (after[name] - before[name]) / count for name in before}
    return Sample(count / applied, done["wal"], done["pages"], done["reads"])


async def measure(site: Site, folder: Path, sizes: list[int], rows: int, samples: int) -> None:
    await site.restart()
    await site.pause_destination()
    await site.clear()
    await sample(site, folder, rows, _SEED)  # warms the processes up
    found: dict[int, list[Sample]] = {}
    spent = 0.0
    for size in sizes:
        for i in range(samples):
            if size < rows:
                # Its own files would make it another size.
                await site.clear()
            started = time.monotonic()
            await fill(site, size)
            spent += time.monotonic() - started
            found.setdefault(size, []).append(await sample(site, folder, rows, _SEED + size + i))
    first = statistics.median(each.rate for each in found[sizes[0]])
    lines = []
    for size, taken in found.items():
        rate = statistics.median(each.rate for each in taken)
        lines.append(
            (
                size,
                rate,
                rate / first,
                ", ".join(f"{each.rate:,.0f}" for each in taken),
                statistics.median(each.wal for each in taken),
                statistics.median(each.pages for each in taken),
                statistics.median(each.reads for each in taken),
            )
        )
    note = (
        f"Goal: {GOAL} of the first rate at the last size. Median of {samples} files a size, a CHECKPOINT before "
        f"the first; filling took {spent:.0f} s."
    )
    show(
        f"Growth: CSV files of {rows:,} new rows into a table that holds contacts already",
        ("records", "rows/s", "to the first", "each file", "WAL, bytes a row", "whole pages a row", "reads a row"),
        lines,
        [note],
    )
    await site.clear()
