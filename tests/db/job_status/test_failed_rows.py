"""The file of failed rows takes no more memory than it needs, however large the rows are."""

from __future__ import annotations

import csv
import io
import tracemalloc

from app.job_status.items import failed_rows
from app.job_status.items.item_filter import Filter
from app.job_status.items.queries import JobRef
from app.resource_types.catalog import Catalog
from tests.db.conftest import Desk, person
from tests.db.staging import process, stage

LARGE = 900_000
LOST = Filter(lost=True)


async def test_large_rows_are_given_back_a_few_at_a_time(desk: Desk) -> None:
    """A thousand rows of a megabyte are no more than one in memory, and none is left out."""
    rows = [person(n, email="nonsense", company="a" * LARGE) for n in range(80)]
    job_id = await stage(desk, rows, chunk=1)
    await process(desk, job_id)
    found: list[str] = []
    tracemalloc.start()
    download = await failed_rows.open_download(desk.database, Catalog(), desk.tenant_id, job_id, LOST)
    async for part in download.parts:
        found += [row[3] for row in read(part)]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found == ["id", *(row["id"] for row in rows)]
    assert peak < 50 * LARGE


async def test_a_page_ends_early_where_its_rows_are_large(desk: Desk) -> None:
    """The next one goes on with the row after it, whether rows failed here or at a destination."""
    await desk.add_destination("hubspot")
    rows = [person(n, email="nonsense" if n % 2 else "a@example.com", company="a") for n in range(12)]
    for row in rows:
        row["attributes"] = {f"k{n}": "b" * 60_000 for n in range(15)} if row["email"] == "nonsense" else {}
    job_id = await stage(desk, rows, chunk=3)
    await process(desk, job_id)
    await desk.execute("UPDATE deliveries SET states = translate(states, 'p', 'f'), failures = '{\"INTERNAL\": {}}'")
    found: list[str] = []
    position: int | None = 0
    pages = 0
    while position is not None:
        async with desk.database.connection() as connection:
            job = JobRef(connection, desk.tenant_id, job_id)
            body, page = await failed_rows.read_page(job, Catalog(), LOST, first=position, limit=100)
        assert len(read(body)) == len(page.items) + 1
        found += [row[3] for row in read(body)[1:]]
        position = page.position
        pages += 1
    assert found == [row["id"] for row in rows]
    assert pages == 2


def read(body: bytes) -> list[list[str]]:
    usual = csv.field_size_limit(2 * LARGE)
    try:
        return list(csv.reader(io.StringIO(body.decode(), newline="")))
    finally:
        csv.field_size_limit(usual)
