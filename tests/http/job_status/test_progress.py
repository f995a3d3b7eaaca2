"""How far a large import is, and what a thousand pollers cost."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from app.auth import service
from app.auth.principals import RECENT
from app.job_status.live.job_cache import PATIENT, YOUNG, JobViews
from app.kit.postgres.database import Connection, Database
from app.settings import Settings
from tests.http.conftest import Api, person
from tests.http.made_jobs import Db, advance, complete, make_job
from tests.stopwatch import stopwatch


def revision_of(etag: str) -> int:
    match = re.fullmatch(r'(?:W/)?"\d+-(\d+)(?:-w[0-9a-f]{8})?"', etag)
    assert match is not None
    return int(match[1])


async def test_a_body_that_arrives_has_no_number_of_items_yet(api: Api, db: Db) -> None:
    job_id = await make_job(db, "receiving", items=None, processed=0, since=None)
    answer = await api.get(f"/v1/jobs/{job_id}")
    job = answer.json()
    assert job["progress"] == {
        "items": None,
        "processed": 0,
        "not_processed": None,
        "bytes_received": 4711,
        "items_per_second": None,
        "expected_seconds": None,
    }
    assert (job["started_at"], job["applied_at"], job["finished_at"], job["error"]) == (None,) * 4
    assert job["cancel_url"] == f"/v1/jobs/{job_id}/cancel"
    assert job["events_url"] == f"/v1/jobs/{job_id}/events"
    assert answer.headers["Retry-After"] == "1"


async def test_a_running_job_tells_its_rate_and_when_it_will_be_done(api: Api, db: Db) -> None:
    job_id = await make_job(db, "running", items=10_000, processed=2_000, since=10.0)
    answer = await api.get(f"/v1/jobs/{job_id}")
    job = answer.json()
    assert job["summary"] == {"total": 2_000, "succeeded": 2_000, "failed": 0, "retry": 0}
    progress = job["progress"]
    assert (progress["items"], progress["processed"], progress["not_processed"]) == (10_000, 2_000, 8_000)
    assert 150 < progress["items_per_second"] <= 200
    assert 40 <= progress["expected_seconds"] <= 53
    assert answer.headers["Retry-After"] in ("4", "5")
    # Its rate is that of the moment of reading, so equal revisions need not be equal byte for byte.
    assert answer.headers["ETag"].startswith('W/"')

    listed = (await api.get("/v1/jobs")).json()["jobs"][0]
    assert listed["progress"]["processed"] == 2_000
    assert set(job) - set(listed) == {"failures", "undo_of", "undone_by", "compensated_by"}


@pytest.mark.parametrize(("processed", "since", "told"), [(9_900, 10.0, "1"), (10, 100.0, "5"), (0, None, "1")])
async def test_a_poller_is_told_a_tenth_of_what_is_left(
    api: Api, db: Db, processed: int, since: float | None, told: str
) -> None:
    """Not sooner than in a second, so that pollers cost little, and not later than in five."""
    job_id = await make_job(db, processed=processed, since=since)
    assert (await api.get(f"/v1/jobs/{job_id}")).headers["Retry-After"] == told


async def test_a_finished_job_keeps_its_rate(api: Api, db: Db) -> None:
    job_id = await make_job(db, "running", items=4_000, processed=1_000, since=20.0)
    await complete(db, job_id)
    first = (await api.get(f"/v1/jobs/{job_id}")).json()["progress"]
    await db.execute("UPDATE jobs SET revision = revision + 1")  # so that it is read again
    await asyncio.sleep(0.3)
    second = (await api.get(f"/v1/jobs/{job_id}")).json()["progress"]
    assert first == second
    assert first["not_processed"] == 0
    assert first["expected_seconds"] is None
    assert 190 < first["items_per_second"] <= 200


async def test_a_job_tells_why_it_failed(api: Api, db: Db) -> None:
    job_id = await make_job(db, "failed", items=None, processed=0, since=None)
    await db.execute("""UPDATE jobs SET error = '{"code": "INVALID_HEADER", "detail": "no id"}'""")
    answer = await api.get(f"/v1/jobs/{job_id}")
    assert answer.json()["error"] == {"code": "INVALID_HEADER", "detail": "no id"}
    assert "Retry-After" not in answer.headers


class Counting(Database):
    """A database that counts how often it is asked for a connection."""

    used = 0

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        self.used += 1
        async with super().connection() as connection:
            yield connection


@pytest.fixture
async def counting(settings: Settings) -> AsyncIterator[Counting]:
    database = Counting(settings, application_name="tests")
    yield database
    await database.close()


async def test_a_thousand_polls_at_once_are_one_reading(counting: Counting, db: Db, api_key: str) -> None:
    job_id = uuid.UUID(await make_job(db))
    tenant_id = await db.fetchval("SELECT tenant_id FROM tenants")
    views = JobViews(counting)
    shown = await asyncio.gather(*(views.read(tenant_id, job_id) for _ in range(1_000)))
    assert {view.revision for view in shown} == {1}
    assert counting.used == 2  # the revision, and the job
    await asyncio.gather(*(views.read(tenant_id, job_id) for _ in range(1_000)))
    assert counting.used <= 3  # read ahead, if the machine was slow
    await complete(db, str(job_id))
    await asyncio.sleep(PATIENT)
    before = counting.used
    shown = await asyncio.gather(*(views.read(tenant_id, job_id) for _ in range(1_000)))
    assert {(view.revision, view.finished) for view in shown} == {(2, True)}
    # The revision, and the job unless a reading ahead was so late that it saw the end.
    assert 1 <= counting.used - before <= 2
    await views.close()


async def test_who_asks_and_goes_takes_nobody_along(counting: Counting, db: Db, api_key: str) -> None:
    """The one whose request began the shared reading hangs up; the others are answered."""
    job_id = uuid.UUID(await make_job(db))
    tenant_id = await db.fetchval("SELECT tenant_id FROM tenants")
    views = JobViews(counting)
    asking = [asyncio.create_task(views.read(tenant_id, job_id)) for _ in range(10)]
    while counting.used < 2:
        await asyncio.sleep(0)
    asking[0].cancel()
    shown = await asyncio.gather(*asking, return_exceptions=True)
    assert isinstance(shown[0], asyncio.CancelledError)
    assert [getattr(view, "revision", view) for view in shown[1:]] == [1] * 9
    await views.close()


async def test_no_poller_is_shown_less_than_before(api: Api, db: Db) -> None:
    """Thirty of them while the job goes on as fast as it can; what a tag names is what the body tells.

    A busy machine shows them a newer view less often, so the job goes on until they have seen some.
    """
    job_id = await make_job(db, items=10_000_000, processed=1_000)
    path = f"/v1/jobs/{job_id}"
    over = asyncio.Event()
    tags: dict[int, int] = {}
    polls = 0

    async def poll(known: bool) -> None:
        nonlocal polls
        seen, etag = 0, ""
        while not over.is_set():
            answer = await api.get(path, {"If-None-Match": etag} if known and etag else None)
            assert answer.status in (200, 304), answer.body
            etag, polls = answer.headers["ETag"], polls + 1
            assert revision_of(etag) >= seen
            seen = revision_of(etag)
            if answer.status == 200:
                processed = answer.json()["summary"]["total"]
                assert tags.setdefault(seen, processed) == processed

    async with asyncio.timeout(120), asyncio.TaskGroup() as pollers:
        for n in range(30):
            pollers.create_task(poll(n % 2 == 0))
        revision = 0
        while revision < 150 or polls <= 100 or len(tags) <= 3:
            revision = await advance(db, job_id)
            await asyncio.sleep(0.01)
        over.set()
    assert all(processed == revision * 1_000 for revision, processed in tags.items())
    final = await complete(db, job_id)
    await asyncio.sleep(PATIENT)  # a crowd may be shown what was true so long ago
    answer = await api.get(path)
    assert (revision_of(answer.headers["ETag"]), answer.json()["state"]) == (final, "completed")


async def test_a_view_may_be_young_but_never_older_than_what_the_client_has(api: Api, db: Db) -> None:
    job_id = await make_job(db)
    path = f"/v1/jobs/{job_id}"
    first = (await api.get(path)).headers["ETag"]
    assert revision_of(first) == 1
    await advance(db, job_id)
    # Another process may have told the client of it.
    known = await api.get(path, {"If-None-Match": first.replace("-1", "-2")})
    assert (known.status, revision_of(known.headers["ETag"])) == (304, 2)
    await advance(db, job_id)
    # How long it may be shown depends on what it took to make it.
    async with asyncio.timeout(60):
        while revision_of((await api.get(path, {"If-None-Match": 'W/"4-2"'})).headers["ETag"]) == 2:
            await asyncio.sleep(YOUNG)
    assert revision_of((await api.get(path)).headers["ETag"]) == 3


async def test_a_waiting_poller_gets_what_it_waited_for(api: Api, db: Db) -> None:
    """However young the view is that everybody else is shown."""
    job_id = await make_job(db)
    path = f"/v1/jobs/{job_id}"
    tag = (await api.get(path)).headers["ETag"]
    for step in range(2, 6):
        waiting = asyncio.create_task(api.get(path, {"If-None-Match": tag, "Prefer": "wait=30"}))
        await asyncio.sleep(0.02)
        await advance(db, job_id)
        answer = await asyncio.wait_for(waiting, 20)
        assert (answer.status, answer.json()["progress"]["processed"]) == (200, 1_000 + step * 1_000)
        tag = answer.headers["ETag"]


async def test_a_revoked_key_polls_no_longer_than_a_second(api: Api, db: Db, api_key: str) -> None:
    job_id = await make_job(db)
    path = f"/v1/jobs/{job_id}"
    assert (await api.get(path)).status == 200
    await service.revoke_key(db, api_key)
    async with stopwatch() as passed:
        while (await api.get(path)).status == 200:
            assert passed.seconds < RECENT + 2
            await asyncio.sleep(0.05)
    made = await service.create_key(db, "acme", ["read", "import"])
    again = api.as_key(made)
    assert (await again.get(path)).status == 200
    await service.revoke_key(db, made)
    # What is not a poll is refused at once, and then polls are as well.
    assert (await again.push([person(1)])).status == 401
    assert (await again.get(path)).status == 401
