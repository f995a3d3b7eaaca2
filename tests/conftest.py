"""Real engines for every test: one PostgreSQL and one Valkey a run, a fresh migrated database a test."""

from __future__ import annotations

import asyncio
import base64
import itertools
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import hypothesis
import msgspec
import pytest
from redis.asyncio import Redis

from app.embedded import Engines
from app.migrations.privileges import privileges
from app.migrations.runner import migrate
from app.settings import Settings
from app.vocabulary.addresses import parse_networks

TEMPLATE = "tranche_template"
LOOPBACK = parse_networks("127.0.0.0/8")
"""Where the stand-ins of CRMs are."""
SECRET_KEY = base64.b64encode(bytes(range(32))).decode()
_numbers = itertools.count(1)

# On a busy machine an example may wait long for its turn: what takes too long by itself, tests of that name say.
hypothesis.settings.register_profile("tranche", deadline=None)
hypothesis.settings.load_profile("tranche")


def pytest_xdist_auto_num_workers() -> int:
    """Two a core, as a test waits for half of its time; each has its own PostgreSQL and Valkey, hence the limit."""
    cores = os.cpu_count() or 1
    return max(cores, min(2 * cores, 8))


def pytest_configure(config: pytest.Config) -> None:
    """Let processes share bytecode where none is written: each of hundreds would compile all that it imports."""
    if os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):
        folder = tempfile.mkdtemp(prefix="tranche-bytecode-")
        os.environ["PYTHONPYCACHEPREFIX"] = folder
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


def with_path(url: str, path: str) -> str:
    """The same server, another database."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{path}"))


@pytest.fixture(scope="session")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    """The run's engines. Kill and restart them only through `own_engines`, or every other test suffers."""
    started = Engines(tmp_path_factory.mktemp("engines"))
    asyncio.run(_prepare(started))
    yield started
    asyncio.run(started.stop())


async def _prepare(engines: Engines) -> None:
    urls = await engines.start()
    admin = await asyncpg.connect(urls.database_url)
    await admin.execute(f"CREATE DATABASE {TEMPLATE}")
    # Only data that survives a crash of the machine would be lost; the tests that kill PostgreSQL have their own.
    # Each test makes a database, so writing a thousand files through to the disk was most of its time.
    for name in ("synchronous_commit", "fsync", "full_page_writes"):
        await admin.execute(f"ALTER SYSTEM SET {name} = off")
    await admin.execute("SELECT pg_reload_conf()")
    await admin.close()
    template = with_path(urls.database_url, TEMPLATE)
    # Rights are kept by each database; before the migration, so that every test has them by default alone.
    database = await asyncpg.connect(template)
    await database.execute(privileges("tranche"))
    await database.close()
    await migrate(template)
    _users.update(owner=urlsplit(urls.database_url).netloc, app=urlsplit(engines.app_urls.database_url).netloc)


_users: dict[str, str] = {}


def as_app(url: str) -> str:
    """A database of the run's engines as the role that serves and works: it owns nothing, so a grant that is missing
    fails a test."""
    return urlsplit(url)._replace(netloc=_users["app"]).geturl()


def as_owner(url: str) -> str:
    """The same as the owner of its tables; engines that are not the run's have no other user in their URL."""
    return urlsplit(url)._replace(netloc=_users["owner"]).geturl() if _users else url


@asynccontextmanager
async def new_database(engines: Engines, *, template: str = "template1") -> AsyncIterator[str]:
    """A database of its own, dropped afterwards."""
    name = f"test_{os.getpid()}_{next(_numbers)}"
    admin = await asyncpg.connect(engines.urls.database_url)
    try:
        await admin.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        yield with_path(engines.urls.database_url, name)
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await admin.close()


@pytest.fixture
async def database_url(engines: Engines) -> AsyncIterator[str]:
    """A fresh database at the newest schema, as its owner."""
    async with new_database(engines, template=TEMPLATE) as url:
        yield url


@pytest.fixture
async def redis_url(engines: Engines) -> str:
    """An empty Redis database."""
    async with Redis.from_url(engines.urls.redis_url) as redis:
        await redis.flushall()
    return engines.urls.redis_url


@pytest.fixture
async def own_engines(tmp_path: Path) -> AsyncIterator[Engines]:
    """Engines of this test alone, to be killed and restarted; the database is migrated."""
    async with Engines(tmp_path / "engines") as started:
        await migrate(started.urls.database_url)
        yield started


@pytest.fixture
def settings(database_url: str, redis_url: str) -> Settings:
    """Quick settings on fresh engines, as the role that owns nothing."""
    return quick(as_app(database_url), redis_url)


def quick(database_url: str, redis_url: str, **changes: object) -> Settings:
    """Settings whose waits fit a test."""
    base = Settings(
        database_url=database_url,
        redis_url=redis_url,
        secret_key=SECRET_KEY,
        log_level="warning",
        # A busy machine may be late with anything: who wants a 503 in its place asks for it.
        db_acquire_timeout=60.0,
        import_deadline=300.0,
        db_connect_timeout=60.0,
        db_read_timeout=60.0,
        sweep_interval=0.3,
        delivery_backoff_base=0.1,
        delivery_backoff_cap=0.5,
        delivery_lease=5.0,
        reconcile_grace=0.3,
        crm_connect_timeout=1.0,
        crm_total_timeout=2.0,
        destination_private="127.0.0.0/8",
        breaker_open=0.5,
        breaker_open_cap=2.0,
        breaker_permit=3.0,
    )
    return msgspec.structs.replace(base, **changes)
