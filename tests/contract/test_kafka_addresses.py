"""Where a worker connects to for Kafka, whatever a cluster calls its brokers; logins, TLS, and what is no broker."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from app.destinations.credentials import NoCredentials
from app.vocabulary.states import EffectState
from jobs.crm import ADAPTERS
from jobs.crm.authorization import FixedAuthorizer
from jobs.crm.kafka import producer
from jobs.crm.port import Crm, Health, Reply, Timeouts
from jobs.outbound.ssrf import DestinationSessions, GuardedConnector, Place
from tests.contract.certificates import certificate
from tests.contract.conftest import TOKEN, Connect, connect_kafka, contacts, told
from tests.contract.kafka import KafkaCase, open_kafka
from tests.contract.kafka_proxy import API_VERSIONS
from tests.types import CONTACTS

OK, RETRY, FAILED, UNKNOWN = EffectState.OK, EffectState.RETRY, EffectState.FAILED, EffectState.UNKNOWN
IDENTITY = 22


@pytest.fixture
def kind() -> str:
    return "kafka"


@pytest.fixture
def case(sandbox: Any) -> KafkaCase:
    assert isinstance(sandbox, KafkaCase)
    return sandbox


def states(reply: Reply) -> list[EffectState]:
    return [outcome.state for outcome in reply.outcomes]


# Where it may connect


async def test_an_inward_address_is_not_called(case: KafkaCase) -> None:
    async with DestinationSessions(()) as sessions:
        reply = await connect_kafka(case, sessions.to(case.url))().push(contacts(1), told())
    assert (states(reply), reply.health) == ([RETRY], Health.CONNECTION_FAULT)
    assert reply.pause is not None
    assert "TRANCHE_DESTINATION_PRIVATE" in reply.detail
    assert case.proxy.connections == 0


class Watched(GuardedConnector):
    """As if bootstrap.test were the proxy, and might be called; all else is what it is."""

    async def find(self, host: str, port: int) -> list[Place]:
        if host == "bootstrap.test":
            return [Place("127.0.0.1", named=True)]
        if host == "inward.test":
            self._sockets.check("10.1.2.3")
        return await super().find(host, port)


@asynccontextmanager
async def watched(case: KafkaCase, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Connect, list[Any]]]:
    """Of a worker that may call nothing inward; and the addresses that sockets connect to."""
    called: list[Any] = []
    loop = asyncio.get_running_loop()
    connect, make = loop.sock_connect, loop.create_connection

    async def sock_connect(sock: socket.socket, address: Any) -> None:
        if address[1] != case.cluster.port:  # where the proxy hands things on
            called.append(address[:2])
        await connect(sock, address)

    async def create_connection(*arguments: Any, **more: Any) -> Any:
        if more.get("sock") is None and arguments[2] != case.cluster.port:
            called.append((arguments[1:3], "by name"))
        return await make(*arguments, **more)

    monkeypatch.setattr(loop, "sock_connect", sock_connect, raising=False)
    monkeypatch.setattr(loop, "create_connection", create_connection, raising=False)
    async with DestinationSessions(()) as sessions:
        session = sessions.to(case.url)
        assert isinstance(session.connector, GuardedConnector)
        session.connector.__class__ = Watched
        yield connect_kafka(case, session), called


@pytest.mark.parametrize(
    "advertised", ["169.254.169.254", "127.0.0.1", "localhost", "10.0.0.7", "::1", "::ffff:127.0.0.1", "inward.test"]
)
async def test_a_broker_cannot_lead_a_worker_inwards(
    case: KafkaCase, monkeypatch: pytest.MonkeyPatch, advertised: str
) -> None:
    """Whatever address a cluster gives its brokers is checked like that of the base URL."""
    case.proxy.brokers = [(1, advertised, case.proxy.port, None)]
    async with watched(case, monkeypatch) as (connect, called):
        crm = connect(base_url=f"kafka://bootstrap.test:{case.proxy.port}")
        reply = await crm.push(contacts(3), told())
        steps = await crm.check(told())
    assert set(states(reply)) == {RETRY}
    assert reply.health is Health.CONNECTION_FAULT
    assert reply.pause is not None
    assert "TRANCHE_DESTINATION_PRIVATE" in reply.detail
    assert advertised not in reply.detail
    assert [(step.name, step.ok) for step in steps][-1] == ("brokers", False)
    assert "advertised.listeners" in steps[-1].detail
    assert set(called) == {("127.0.0.1", case.proxy.port)}, "the bootstrap server alone"
    assert await case.calls() == []


@pytest.mark.parametrize("broker", [None, (1, None, 9092, None), (1, "127.0.0.1", 0, None), (1, "b", 99_999, None)])
async def test_a_broker_without_an_address_leads_nothing(connect: Connect, case: KafkaCase, broker: Any) -> None:
    case.proxy.brokers = [broker] if broker else []
    reply = await connect().push(contacts(2), told())
    assert (set(states(reply)), reply.health) == ({RETRY}, Health.CRM_FAULT)
    assert "LEADER_NOT_AVAILABLE" in reply.detail
    assert [(step.name, step.ok) for step in await connect().check(told())][:2] == [("connect", True), ("topic", False)]


async def test_a_broker_is_called_at_the_address_that_was_checked(
    case: KafkaCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not at what its name means a moment later."""
    looked_up: list[str] = []

    class Rebound(Watched):
        async def find(self, host: str, port: int) -> list[Place]:
            looked_up.append(host)
            return [Place("127.0.0.1", named=True)]

    case.proxy.brokers = [(1, "no-such-broker.invalid", case.proxy.port, None)]
    async with watched(case, monkeypatch) as (connect, called):
        monkeypatch.setattr(Watched, "find", Rebound.find)
        reply = await connect(base_url=f"kafka://bootstrap.test:{case.proxy.port}").push(contacts(3), told())
    assert set(states(reply)) == {OK}
    assert looked_up == ["bootstrap.test", "no-such-broker.invalid"]
    assert set(called) == {("127.0.0.1", case.proxy.port)}


async def test_a_cluster_of_many_brokers_costs_few_connections(
    connect: Connect, case: KafkaCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(producer, "MOST_CONNECTIONS", 2)
    made = connect()._producer()  # type: ignore[attr-defined]
    for host in ("127.0.0.1", "localhost", "LOCALHOST", "Localhost"):
        await made.reach((host, case.proxy.port))
    async with asyncio.timeout(20):
        while len(case.proxy._open) > 2:
            await asyncio.sleep(0.02)
    made.close()


class Public(GuardedConnector):
    """As if the proxy were on the public internet."""

    async def find(self, host: str, port: int) -> list[Place]:
        return [Place("127.0.0.1", named=False)]


@asynccontextmanager
async def public(case: KafkaCase) -> AsyncIterator[Connect]:
    async with DestinationSessions(()) as sessions:
        session = sessions.to(case.url)
        assert isinstance(session.connector, GuardedConnector)
        session.connector.__class__ = Public
        yield connect_kafka(case, session)


async def test_nothing_is_sent_in_the_clear_over_the_internet(case: KafkaCase) -> None:
    async with public(case) as connect:
        reply = await connect(options={"tls": False}).push(contacts(1), told())
    assert (states(reply), reply.health) == ([RETRY], Health.CONNECTION_FAULT)
    assert "tls" in reply.detail
    assert case.proxy.connections == 0


@pytest.mark.parametrize(
    ("name", "own", "works"),
    [("localhost", True, True), ("elsewhere.example", True, False), ("localhost", False, False)],
)
async def test_every_broker_has_the_certificate_of_its_name(tmp_path: Path, name: str, own: bool, works: bool) -> None:
    """Its name in the cluster, though an address is called."""
    cert, key, pem = certificate(tmp_path, name)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    async with open_kafka(TOKEN, tls=context) as case, public(case) as connect:
        case.proxy.brokers = [(1, "localhost", case.proxy.port, None)]
        options = {"tls": True, "ssl_root_certificate": pem if own else None}
        crm = connect(base_url=f"kafka://{name}:{case.proxy.port}", options=options)
        reply = await crm.push(contacts(2), told())
        if works:
            assert set(states(reply)) == {OK}
            assert "encrypted by TLS" in (await crm.check(told()))[0].detail
        else:
            assert set(states(reply)) == {RETRY}
            assert reply.health is Health.CONNECTION_FAULT
            assert "TLS" in reply.detail
            assert case.proxy.calls == []


# Logins


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
async def test_a_user_is_let_in_by_each_mechanism(connect: Connect, case: KafkaCase, mechanism: str) -> None:
    case.proxy.mechanisms = [mechanism]
    options = {"sasl_mechanism": mechanism}
    assert states(await connect(options=options).push(contacts(1), told())) == [OK]
    reply = await connect(options=options, token="wrong").push(contacts(1), told())
    assert (states(reply), reply.health) == ([RETRY], Health.CONNECTION_FAULT)
    assert "SASL_AUTHENTICATION_FAILED" in reply.detail


async def test_another_mechanism_than_the_broker_has_is_said(connect: Connect, case: KafkaCase) -> None:
    case.proxy.mechanisms = ["PLAIN", "OAUTHBEARER"]
    reply = await connect().push(contacts(1), told())
    assert reply.health is Health.CONNECTION_FAULT
    assert "it offers PLAIN, OAUTHBEARER, and the option sasl_mechanism is SCRAM-SHA-512" in reply.detail


async def test_a_broker_cannot_have_a_worker_compute_for_ever(connect: Connect, case: KafkaCase) -> None:
    case.proxy.iterations = 2_000_000_000
    reply = await connect().push(contacts(1), told())
    assert states(reply) == [RETRY]
    assert "too long a computation" in reply.detail


async def test_without_credentials_there_is_no_login(connect: Connect, case: KafkaCase) -> None:
    case.proxy.sasl = False
    crm = connect(authorizer=FixedAuthorizer(NoCredentials()))
    assert states(await crm.push(contacts(1), told())) == [OK]
    assert 17 not in case.proxy.asked


async def test_an_answer_without_end_is_cut(guarded: aiohttp.ClientSession) -> None:
    sent = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        with contextlib.suppress(OSError):
            writer.write(struct.pack("!i", 2**30))
            while True:
                writer.write(b" " * 65_536)
                await writer.drain()
                sent += 65_536
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        reply = await at(server, guarded).push(contacts(2), told())
    finally:
        server.close()
    assert set(states(reply)) == {RETRY}
    assert "larger than 1000000 bytes" in reply.detail
    assert sent < 50_000_000


def at(server: asyncio.Server, session: aiohttp.ClientSession) -> Crm:
    return ADAPTERS["kafka"](
        session=session,
        resource=CONTACTS,
        base_url=f"kafka://127.0.0.1:{server.sockets[0].getsockname()[1]}",
        authorizer=FixedAuthorizer(NoCredentials()),
        options={"tls": False},
        timeouts=Timeouts(connect=0.2, total=0.3),
    )


async def test_what_is_no_broker_says_nothing(guarded: aiohttp.ClientSession) -> None:
    """Whatever a broker answers is neither believed nor raised, and is read within bounds."""
    rng = random.Random(7)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                (length,) = struct.unpack("!i", await reader.readexactly(4))
                request = await reader.readexactly(length)
                kind = struct.unpack_from("!h", request)[0]
                body = rng.randbytes(rng.choice((0, 3, 40, 400)))
                if kind == API_VERSIONS and rng.random() < 0.9:
                    body = b"\0\0" + struct.pack("!i", 4)
                    body += b"".join(struct.pack("!hhh", api, 0, 9) for api in (0, 3, 22, 17))
                elif rng.random() < 0.3:
                    body = struct.pack("!i", rng.choice((-1, 0, 1, 2**31 - 1))) * rng.randrange(12)
                size = len(body) + 4 if rng.random() < 0.9 else rng.choice((-1, 0, 3, 2**31 - 1))
                writer.write(struct.pack("!i", size) + request[4:8] + body)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        for _ in range(150):
            crm = at(server, guarded)
            reply = await crm.push(contacts(2), told())
            assert [o.record_id for o in reply.outcomes] == ["c0", "c1"]
            assert OK not in states(reply)
            assert all(o.detail and o.code is not None for o in reply.outcomes)
            assert await crm.check(told())
    finally:
        server.close()
