"""What Kafka alone can do to records: messages and their headers, partitions and leaders, numbers of batches,
rights and topics."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from app.destinations.base_urls import KAFKA, base_url_fault
from app.destinations.kinds import OptionsError, parse, paths_of_one_type, reads_back
from app.tracing import context
from app.vocabulary.states import EffectState, ErrorCode
from jobs.crm.port import Crm, Headers, Health, Reply
from jobs.outbound import idle
from jobs.outbound.ssrf import DestinationSessions
from tests.conftest import LOOPBACK
from tests.contract.conftest import Connect, connect_kafka, contact, contacts, told, with_token
from tests.contract.kafka import USER, KafkaCase, headers_of
from tests.contract.kafka_proxy import METADATA, PRODUCE
from tests.types import sent

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


# Messages


async def test_a_message_says_all_that_its_reader_needs(connect: Connect, case: KafkaCase) -> None:
    trace = context.begin()
    crm = connect(options={"headers": {"source": "tranche"}, "fields": {"company": None, "plan": "tier"}})
    person = contact("c1", version=7, phone=None, attributes={"plan": "gold", "seats": 3, "old": None})
    await crm.push([person], Headers("req-1", "event-1", trace))

    [message] = await case.messages()
    assert (message.topic(), message.key()) == ("contacts", b"c1")
    assert msgspec.json.decode(message.value()) == {
        "id": "c1",
        "type": "contacts",
        "version": 7,
        "email": "c1@example.org",
        "first_name": "Ada",
        "last_name": "Łovelace",
        "phone": None,
        "tier": "gold",
        "attributes": {"seats": 3, "old": None},
    }
    headers = headers_of(message)
    assert context.read(headers["traceparent"]) is not None
    assert headers.pop("traceparent").split("-")[1] == trace.trace_id
    assert headers == {
        "type": "contacts",
        "version": "7",
        "x-request-id": "req-1",
        "x-event-id": "event-1",
        "source": "tranche",
    }


async def test_what_nobody_named_is_in_no_message(crm: Crm, case: KafkaCase) -> None:
    await crm.push([sent("c1", 1, email="a@example.org")], told())
    [message] = await case.messages()
    assert msgspec.json.decode(message.value()).keys() == {"id", "type", "version", "email"}


@pytest.mark.parametrize("deleted", ["tombstone", "message"])
async def test_a_removed_record_is_a_tombstone_or_says_that_it_is_deleted(
    connect: Connect, case: KafkaCase, deleted: str
) -> None:
    reply = await connect(options={"deleted": deleted}).archive([sent("c1", 2, deleted=True)], told())
    [message] = await case.messages()
    assert states(reply) == [OK]
    assert (message.key(), headers_of(message)["version"]) == (b"c1", "2")
    if deleted == "tombstone":
        assert message.value() is None
    else:
        assert msgspec.json.decode(message.value()) == {"id": "c1", "type": "contacts", "version": 2, "deleted": True}


@pytest.mark.parametrize("compression", ["none", "gzip", "snappy", "lz4", "zstd"])
async def test_every_compression_can_be_read(connect: Connect, case: KafkaCase, compression: str) -> None:
    people = [contact(f"c{n}", company="x" * 500) for n in range(50)]
    assert set(states(await connect(options={"compression": compression}).push(people, told()))) == {OK}
    assert {message.key() for message in await case.messages()} == {person.record_id.encode() for person in people}
    size = sum(len(content) for call in await case.calls() for content in call["batches"].values())
    assert (size < 15_000) is (compression != "none")


async def test_a_key_goes_where_other_clients_look_for_it(crm: Crm, case: KafkaCase) -> None:
    """To the partition that librdkafka's murmur2, and so the Java client, chooses for it."""
    keys = [f"k{n}é" for n in range(40)]
    await crm.push([contact(key) for key in keys], told())
    for key in keys:
        await case.edit("id", key, {})
    partitions: dict[bytes, set[int]] = {}
    for message in await case.messages():
        partitions.setdefault(message.key(), set()).add(message.partition())
    assert len(partitions) == 40
    assert {len(found) for found in partitions.values()} == {1}
    assert len(set.union(*partitions.values())) > 1


async def test_large_calls_go_in_several_batches(
    connect: Connect, case: KafkaCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.crm.kafka.sending.MOST_BYTES", 2_000)
    assert set(states(await connect().push(contacts(60), told()))) == {OK}
    calls = await case.calls()
    assert len(calls) > 1
    assert max(len(content) for call in calls for content in call["batches"].values()) < 3_000
    assert {call["acks"] for call in calls} == {-1}, "all replicas in sync"
    assert len(await case.effects()) == 60


async def test_the_first_message_of_a_key_makes_its_record_unless_others_write_there(connect: Connect) -> None:
    crm = connect()
    records = [contact("c1"), contact("c2", remote_id="c2")]
    assert [o.created for o in (await crm.push(records, told())).outcomes] == [True, None]
    assert [o.created for o in (await crm.archive([sent("c1", 2, deleted=True)], told())).outcomes] == [None]
    shared = connect(options={"shared": True})
    assert (crm.appends, shared.appends, connect(options={"repeatable": False}).appends) == (True, False, False)
    assert [o.created for o in (await shared.push(records, told())).outcomes] == [None, None]


# What brokers say of batches


async def test_a_batch_that_is_refused_without_a_name_is_halved(crm: Crm, case: KafkaCase) -> None:
    await case.faults(reject={"keys": ["c5", "c11"], "code": 10, "message": ""})
    reply = await crm.push(contacts(20), told())
    rejected = (FAILED, ErrorCode.DESTINATION_REJECTED)
    refused = {o.record_id: o for o in reply.outcomes if o.state is not OK}
    assert {key: (o.state, o.code) for key, o in refused.items()} == {"c5": rejected, "c11": rejected}
    assert "MESSAGE_TOO_LARGE (10)" in refused["c5"].detail
    assert reply.health is Health.WELL
    assert sorted(e["key"] for e in await case.effects()) == sorted(f"c{n}" for n in range(20) if n not in (5, 11))


@pytest.mark.parametrize("code", [3, 5, 6, 19, 56])
async def test_a_partition_that_moves_costs_another_try(crm: Crm, case: KafkaCase, code: int) -> None:
    case.proxy.codes[PRODUCE] = [code]
    before = case.proxy.asked.count(METADATA)
    assert set(states(await crm.push(contacts(5), told()))) == {OK}
    assert case.proxy.asked.count(METADATA) - before == 2
    assert len(await case.effects()) == 5


@pytest.mark.parametrize(
    ("code", "state", "health", "words"),
    [
        (6, RETRY, Health.CRM_FAULT, "NOT_LEADER_OR_FOLLOWER (6)"),
        (19, RETRY, Health.CRM_FAULT, "(19)"),
        (45, RETRY, Health.CRM_FAULT, "(45)"),
        (7, UNKNOWN, Health.CRM_FAULT, "(7)"),
        (20, UNKNOWN, Health.CRM_FAULT, "(20)"),
        (-1, UNKNOWN, Health.CRM_FAULT, "(-1)"),
        (999, UNKNOWN, Health.CRM_FAULT, "(999)"),
        (29, RETRY, Health.SETUP_FAULT, f"allow User:{USER} to Describe and Write the topic contacts"),
        (76, RETRY, Health.SETUP_FAULT, "choose another compression"),
    ],
)
async def test_what_a_code_means_for_the_records(
    crm: Crm, case: KafkaCase, code: int, state: EffectState, health: Health, words: str
) -> None:
    case.proxy.codes[PRODUCE] = [code] * 9
    reply = await crm.push(contacts(5), told())
    assert set(states(reply)) == {state}
    assert reply.health is health
    assert all(words in o.detail for o in reply.outcomes)
    assert words in reply.detail
    case.proxy.codes.clear()
    assert set(states(await crm.push(contacts(5), told()))) == {OK}


async def test_a_batch_in_doubt_is_sent_again_under_its_number(crm: Crm, case: KafkaCase) -> None:
    """So a broker appends it once, whichever of the answers was lost."""
    await case.faults(accept_then_drop={"times": 2})
    assert set(states(await crm.push(contacts(5), told()))) == {OK}
    first, *others = await case.calls()
    assert len(others) == 2
    assert all(other["batches"] == first["batches"] for other in others)
    assert len(await case.messages()) == 5
    await crm.push(contacts(5), told())
    assert len(await case.messages()) == 10


async def test_a_doubt_that_stays_ends_the_producer(crm: Crm, case: KafkaCase) -> None:
    await case.faults(accept_then_drop={"times": 3})
    assert set(states(await crm.push(contacts(5), told()))) == {UNKNOWN}
    asked = case.proxy.asked.count(IDENTITY)
    assert set(states(await crm.push(contacts(5), told()))) == {OK}
    assert case.proxy.asked.count(IDENTITY) == asked + 1, "what the old one's numbers mean is not known any more"


async def test_a_throttled_producer_waits(crm: Crm, case: KafkaCase) -> None:
    case.proxy.throttle = 1_500
    reply = await crm.push(contacts(2), told())
    assert states(reply) == [OK, OK]
    assert reply.pause is not None
    assert (reply.pause.seconds, reply.pause.code) == (1.5, ErrorCode.DESTINATION_RATE_LIMIT)


@pytest.mark.parametrize(
    ("asked", "code", "health", "words"),
    [
        (METADATA, 3, Health.SETUP_FAULT, "make the topic contacts"),
        (METADATA, 29, Health.SETUP_FAULT, "Write the topic contacts"),
        (METADATA, 17, Health.SETUP_FAULT, "option topic"),
        (METADATA, 5, Health.CRM_FAULT, "(5)"),
        (IDENTITY, 31, Health.SETUP_FAULT, "IdempotentWrite"),
        (IDENTITY, 15, Health.CRM_FAULT, "(15)"),
    ],
)
async def test_what_the_account_lacks_holds_the_destination(
    crm: Crm, case: KafkaCase, asked: int, code: int, health: Health, words: str
) -> None:
    case.proxy.codes[asked] = [code]
    reply = await crm.push(contacts(3), told())
    assert {(o.state, o.code) for o in reply.outcomes} == {(RETRY, ErrorCode.DESTINATION_UNAVAILABLE)}
    assert reply.health is health
    assert words in reply.detail
    assert await case.calls() == []


async def test_a_topic_that_is_not_there_is_not_made(connect: Connect, case: KafkaCase) -> None:
    crm = connect(options={"topic": "people"})
    steps = await crm.check(told())
    reply = await crm.push(contacts(1), told())
    assert [(step.name, step.ok) for step in steps] == [("connect", True), ("topic", False)]
    for words in (reply.detail, steps[-1].detail):
        assert "kafka-topics --create --topic people" in words
    assert reply.health is Health.SETUP_FAULT
    found = await asyncio.to_thread(case.cluster._producer.list_topics, timeout=10)
    assert "people" not in found.topics


async def test_a_test_looks_at_everything_and_writes_nothing(crm: Crm, case: KafkaCase) -> None:
    steps = await crm.check(told())
    assert [(step.name, step.ok) for step in steps] == [
        (name, True) for name in ("connect", "topic", "write", "brokers")
    ]
    assert "4 partitions" in steps[1].detail
    assert await case.messages() == []


# Connections


async def test_producers_are_kept_and_closed_when_nobody_needs_them(
    connect: Connect, case: KafkaCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idle, "IDLE_SECONDS", 0.3)
    crm = connect()
    for _ in range(3):
        await crm.push(contacts(3), told())
    assert (case.proxy.connections, case.proxy.asked.count(IDENTITY)) == (1, 1)
    async with asyncio.timeout(20):
        while case.proxy._open:
            await asyncio.sleep(0.02)


async def test_what_is_kept_ends_with_the_worker(case: KafkaCase) -> None:
    async with DestinationSessions(LOOPBACK) as sessions:
        await connect_kafka(case, sessions.to(case.url))().push(contacts(1), told())
        assert case.proxy._open
    async with asyncio.timeout(20):
        while case.proxy._open:
            await asyncio.sleep(0.02)


async def test_the_next_bootstrap_server_answers_for_one_that_is_down(connect: Connect, case: KafkaCase) -> None:
    crm = connect(base_url=f"kafka://127.0.0.1:1,127.0.0.1:{case.proxy.port}")
    assert states(await crm.push(contacts(1), told())) == [OK]


# Options and base URLs


@pytest.mark.parametrize(
    "url",
    [
        "kafka://b-1.example.com:9092",
        "kafka://b-1.example.com",
        "kafka://b-1.example.com:9092,b-2.example.com:9093/",
        "kafka://[2606:4700::1111]:9092,93.184.216.34:9092",
    ],
)
def test_a_base_url_names_bootstrap_servers(url: str) -> None:
    assert base_url_fault(url, (), KAFKA) is None


@pytest.mark.parametrize(
    "url",
    [
        "https://b-1.example.com",
        "kafka://b-1.example.com:9092,",
        "kafka://,b-1.example.com:9092",
        "kafka://b-1.example.com:99999",
        "kafka://b-1.example.com:9092/topic",
        "kafka://ada:secret@b-1.example.com:9092",
        "kafka://b-1.example.com:9092,https://b-2.example.com",
    ],
)
def test_anything_else_is_no_base_url(url: str) -> None:
    fault = base_url_fault(url, (), KAFKA)
    assert fault is not None
    assert "kafka://b-1.example.com:9092,b-2.example.com:9092" in fault
    assert "secret" not in fault


def test_no_bootstrap_server_may_be_within_a_network() -> None:
    fault = base_url_fault("kafka://b-1.example.com:9092,10.0.0.1:9092", (), KAFKA)
    assert fault is not None
    assert "TRANCHE_DESTINATION_PRIVATE" in fault
    assert base_url_fault("kafka://127.0.0.1:9092", LOOPBACK, KAFKA) is None


@pytest.mark.parametrize(
    "options",
    [
        {"topic": ""},
        {"topic": "a b"},
        {"topic": "{kind}"},
        {"headers": {"version": "1"}},
        {"fields": {"email": "version"}},
        {"sasl_mechanism": "GSSAPI"},
        {"compression": "brotli"},
        {"deleted": "skip"},
        {"verify_every": 86_400},
        {"ssl_root_certificate": "/etc/ssl/ca.pem"},
    ],
    ids=str,
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(OptionsError):
        parse("kafka", options)


async def test_certificates_that_cannot_be_read_are_refused(connect: Connect) -> None:
    with pytest.raises(ValueError, match="ssl_root_certificate"):
        connect(options={"tls": True, "ssl_root_certificate": "-----BEGIN CERTIFICATE-----\nx"})


async def test_a_token_is_no_login(connect: Connect) -> None:
    with pytest.raises(ValueError, match="basic"):
        connect(authorizer=with_token())


def test_a_topic_for_one_type_is_for_contacts_and_nothing_is_read_back() -> None:
    assert paths_of_one_type({"topic": "people"}) == {"topic": "people"}
    assert paths_of_one_type({"topic": "crm.{type}"}) == {}
    assert not reads_back("kafka", {})
