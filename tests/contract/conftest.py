"""Every adapter against the stand-in of its CRM, over a real loopback socket."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest

from app.destinations.credentials import BasicCredentials, TokenCredentials
from app.embedded import Engines
from app.sandbox import ANY, KINDS, open_sandbox
from jobs.crm import ADAPTERS
from jobs.crm.authorization import FixedAuthorizer
from jobs.crm.port import Crm, Headers, SentRecord, Timeouts
from jobs.outbound.ssrf import DestinationSessions
from tests.conftest import LOOPBACK
from tests.contract.kafka import OPTIONS as KAFKA_OPTIONS
from tests.contract.kafka import USER, KafkaCase, ReadByConsumer, open_kafka
from tests.contract.object_store import FoldedStore, ObjectCase, open_object_store
from tests.contract.postgres import OPTIONS as POSTGRES_OPTIONS
from tests.contract.postgres import PostgresCase, open_postgres
from tests.contract.scripted import Script, scripted
from tests.types import CONTACTS, sent

TOKEN = "secret-token-1f9c"

Connect = Callable[..., Crm]

_events = itertools.count(1)


def told(request_id: str = "r", event_id: str | None = None) -> Headers:
    """Headers of a call with contents of its own, unless its event is named."""
    return Headers(request_id, event_id or f"event-{next(_events)}")


def with_token(token: str = TOKEN) -> FixedAuthorizer:
    return FixedAuthorizer(TokenCredentials(token=token))


class Sandbox:
    """A running stand-in, seen through its control routes."""

    def __init__(self, kind: str, url: str, session: aiohttp.ClientSession) -> None:
        self.kind = kind
        self.locks_calls = KINDS[kind]().locks_calls
        self.url = url
        self.session = session

    async def get(self, path: str) -> dict[str, Any]:
        return await self._control("GET", path)

    async def faults(self, **faults: dict[str, Any]) -> None:
        """Exactly these faults from now on."""
        await self._control("PUT", "faults", faults)

    async def effects(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = (await self.get("ledger"))["effects"]
        return rows

    async def calls(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = (await self.get("calls"))["calls"]
        return rows

    async def edit(self, key_property: str, key: str, properties: dict[str, Any]) -> None:
        """What a user of the CRM types, by hand, into a record that is there or becomes one."""
        await self._control("POST", "contacts", {"key_property": key_property, "key": key, "properties": properties})

    async def remove(self, record_id: str) -> None:
        """A user of the CRM takes a record away."""
        await self._control("DELETE", f"contacts/{record_id}")

    async def _control(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        async with self.session.request(method, f"{self.url}/__sandbox__/{path}", json=body) as response:
            answer: dict[str, Any] = await response.json()
            assert response.status == 200, answer
            return answer


WITH_STAND_IN = sorted(ADAPTERS.keys() & KINDS.keys())
"""Kinds whose other side is a stand-in of ours; PostgreSQL is itself, Moto is others' S3, brokers are librdkafka's."""
UNREAD = ("kafka", "object")
"""Kinds that cannot be read back: what has arrived there, a test sees for itself."""


@pytest.fixture(params=[*WITH_STAND_IN, "postgres", *UNREAD])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
async def guarded() -> AsyncIterator[aiohttp.ClientSession]:
    """The session of a worker."""
    async with DestinationSessions(LOOPBACK) as sessions:
        yield sessions.to("postgresql://")


@pytest.fixture
def postgres_engines(request: pytest.FixtureRequest, kind: str) -> Engines | None:
    return request.getfixturevalue("engines") if kind == "postgres" else None


@pytest.fixture
async def script() -> AsyncIterator[Script]:
    async with scripted() as script:
        yield script


@pytest.fixture
async def sandbox(
    kind: str, session: aiohttp.ClientSession, postgres_engines: Engines | None
) -> AsyncIterator[Sandbox | PostgresCase | KafkaCase | ObjectCase]:
    if kind == "kafka":
        async with open_kafka(TOKEN) as kafka:
            yield kafka
        return
    if postgres_engines is not None:
        async with open_postgres(postgres_engines, TOKEN) as case:
            yield case
        return
    if kind == "object":
        async with open_object_store(session) as store:
            yield store
        return
    async with open_sandbox(kind, fields=[ANY]) as url:
        yield Sandbox(kind, url, session)


@pytest.fixture
def connect(sandbox: Sandbox, session: aiohttp.ClientSession, guarded: aiohttp.ClientSession) -> Connect:
    """An adapter for the sandbox; any argument of the factory can be given instead."""
    if isinstance(sandbox, PostgresCase):
        return connect_postgres(sandbox, guarded)
    if isinstance(sandbox, KafkaCase):
        return connect_kafka(sandbox, guarded)
    if isinstance(sandbox, ObjectCase):
        return connect_object_store(sandbox, session)

    def connect(**changes: Any) -> Crm:
        arguments: dict[str, Any] = {
            "session": session,
            "resource": CONTACTS,
            "base_url": sandbox.url,
            "authorizer": with_token(changes.pop("token", TOKEN)),
            "options": {**KINDS[sandbox.kind]().options, **changes.pop("options", {})},
            "timeouts": Timeouts(connect=1.0, total=2.0),
        }
        return ADAPTERS[sandbox.kind](**{**arguments, **changes})

    return connect


def connect_postgres(case: PostgresCase, session: aiohttp.ClientSession) -> Connect:
    def connect(**changes: Any) -> Crm:
        arguments: dict[str, Any] = {
            "session": session,
            "resource": CONTACTS,
            "base_url": case.url,
            "authorizer": FixedAuthorizer(
                BasicCredentials(username=case.user, password=changes.pop("token", case.password))
            ),
            "options": {**POSTGRES_OPTIONS, **changes.pop("options", {})},
            "timeouts": Timeouts(connect=1.0, total=2.0),
        }
        return ADAPTERS["postgres"](**{**arguments, **changes})

    return connect


def connect_kafka(case: KafkaCase, session: aiohttp.ClientSession) -> Connect:
    def connect(**changes: Any) -> Crm:
        arguments: dict[str, Any] = {
            "session": session,
            "resource": CONTACTS,
            "base_url": case.url,
            "authorizer": FixedAuthorizer(BasicCredentials(username=USER, password=changes.pop("token", TOKEN))),
            "options": {**KAFKA_OPTIONS, **changes.pop("options", {})},
            "timeouts": Timeouts(connect=1.0, total=2.0),
        }
        return ReadByConsumer(case, **{**arguments, **changes})

    return connect


def connect_object_store(case: ObjectCase, session: aiohttp.ClientSession) -> Connect:
    def connect(**changes: Any) -> Crm:
        secret = changes.pop("token", case.secret)
        arguments: dict[str, Any] = {
            "session": session,
            "resource": CONTACTS,
            "base_url": case.url,
            "authorizer": FixedAuthorizer(BasicCredentials(username=case.access_key, password=secret)),
            "options": {"bucket": case.bucket, **changes.pop("options", {})},
            "timeouts": Timeouts(connect=1.0, total=2.0),
        }
        return FoldedStore(case.moto, **{**arguments, **changes})

    return connect


@pytest.fixture
def crm(connect: Connect) -> Crm:
    return connect()


def contact(key: str, **fields: Any) -> SentRecord:
    """A contact with all standard fields set."""
    standard: dict[str, Any] = {
        "version": 1,
        "email": f"{key}@example.org",
        "first_name": "Ada",
        "last_name": "Łovelace",
        "phone": "001-808-617-6467x12895",
        "company": "Analytical, Inc.",
    }
    return sent(key, **{**standard, **fields})


def contacts(count: int) -> list[SentRecord]:
    return [contact(f"c{number}") for number in range(count)]
