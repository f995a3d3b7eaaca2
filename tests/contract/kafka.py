"""Kafka as the case of its kind: the brokers that librdkafka brings for tests (its mock cluster), a consumer that reads
the topics back, and a proxy in front that loses what a network loses.

The brokers keep topics and speak the protocol. What they do not have is done by the proxy, as Kafka's documentation
says: SASL, a batch whose number was seen before (KIP-98), and a batch that is refused because of some messages
(KIP-467). The proxy is the only broker that an adapter hears of.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import confluent_kafka
import msgspec
import pytest

from jobs.crm.kafka.adapter import Kafka
from jobs.crm.mapping import same
from jobs.crm.port import Difference, Headers, Health, ReadBack, Seen, SentRecord
from tests.contract.kafka_proxy import Proxy

OPTIONS: Final[dict[str, Any]] = {"tls": False}
TOPICS: Final = ("contacts", "companies", "order-lines")
USER: Final = "tranche-sync"
_PARTITIONS: Final = 4
_OWN: Final = ("id", "type", "version", "deleted")
_QUIET: Final = {"log_level": 0, "socket.timeout.ms": 10_000}


class Cluster:
    """Brokers of the mock cluster, and what is in their topics."""

    def __init__(self) -> None:
        own = {"test.mock.num.brokers": 1, "partitioner": "murmur2"}
        self._producer = confluent_kafka.Producer({"bootstrap.servers": "mock", **own, **_QUIET})
        for topic in TOPICS:
            found = self._producer.list_topics(topic, timeout=30)
        [broker] = found.brokers.values()
        self.port: int = broker.port
        self._consumer = confluent_kafka.Consumer(
            {
                "bootstrap.servers": f"127.0.0.1:{self.port}",
                "group.id": "evidence",
                "enable.auto.commit": False,
                **_QUIET,
            }
        )
        self._read: list[confluent_kafka.Message] = []
        self._next = {(topic, n): 0 for topic in TOPICS for n in range(_PARTITIONS)}

    def read(self) -> list[confluent_kafka.Message]:
        """Every message so far, in the order of their times."""
        ends = {}
        for place in self._next:
            _, ends[place] = self._consumer.get_watermark_offsets(confluent_kafka.TopicPartition(*place), timeout=30)
        behind = {place: self._next[place] for place, end in ends.items() if self._next[place] < end}
        if behind:
            self._consumer.assign([confluent_kafka.TopicPartition(*p, offset) for p, offset in behind.items()])
        while any(self._next[place] < ends[place] for place in behind):
            for message in self._consumer.consume(1_000, timeout=0.1):
                assert message.error() is None, message.error()
                place = message.topic(), message.partition()
                if message.offset() == self._next[place]:
                    self._next[place] += 1
                    self._read.append(message)
        self._consumer.unassign()
        return sorted(self._read, key=lambda m: m.timestamp()[1])

    def write(self, topic: str, key: str, value: bytes | None) -> None:
        """As somebody else."""
        self._producer.produce(topic, key=key, value=value)
        assert self._producer.flush(30) == 0

    def close(self) -> None:
        self._consumer.close()
        self._producer.purge()


class KafkaCase:
    """What `tests.contract.conftest.Sandbox` is for a stand-in: evidence and faults."""

    kind = "kafka"
    locks_calls = False

    def __init__(self, cluster: Cluster, proxy: Proxy) -> None:
        self.cluster = cluster
        self.proxy = proxy

    @property
    def url(self) -> str:
        return f"kafka://127.0.0.1:{self.proxy.port}"

    async def get(self, path: str) -> dict[str, Any]:
        name, _, query = path.partition("?object=")
        match name:
            case "contacts":
                topic = query or "contacts"
                held = (await self.held(topic)).items()
                records = [{"key": k, "id": k, "object": topic, "properties": _filled(doc)} for k, doc in held]
                return {"contacts": records, "total": len(records)}
            case "calls":
                return {"calls": self.proxy.calls, "max_concurrent": self.proxy.max_concurrent}
        pytest.skip(f"Kafka has no {name}")

    async def messages(self) -> list[confluent_kafka.Message]:
        return await asyncio.to_thread(self.cluster.read)

    async def held(self, topic: str = "contacts") -> dict[str, dict[str, Any]]:
        """What a consumer has who applies the messages one by one."""
        state: dict[str, dict[str, Any]] = {}
        for message in await self.messages():
            if message.topic() == topic:
                apply(state, message)
        return state

    async def effects(self) -> list[dict[str, Any]]:
        states: dict[str, dict[str, dict[str, Any]]] = {}
        found = []
        for message in await self.messages():
            state = states.setdefault(str(message.topic()), {})
            key = _key(message)
            before = state.get(key)
            apply(state, message)
            headers = headers_of(message)
            deleted = key not in state
            found.append(
                {
                    "object": message.topic(),
                    "key": key,
                    "id": key,
                    "properties": _filled(state.get(key, {})),
                    "created": before is None and not deleted,
                    "deleted": deleted,
                    "changed": before != state.get(key),
                    "request_id": headers.get("x-request-id"),
                    "by": "api" if "x-request-id" in headers else "user",
                }
            )
        return [effect for effect in found if effect["changed"] or not effect["deleted"]]

    async def calls(self) -> list[dict[str, Any]]:
        return self.proxy.calls

    async def faults(self, **faults: dict[str, Any]) -> None:
        """Exactly these from now on; those that Kafka cannot have skip the test."""
        self.proxy.faults = {}
        for kind, fault in faults.items():
            if fault.get("on") == "read":
                pytest.skip("Kafka is not read")
            match kind:
                case "down" | "drop_before" | "accept_then_drop" | "slow" | "latency" | "garbage" | "reject" | "omit":
                    self.proxy.faults[kind] = dict(fault)
                case "refuse":
                    await self.proxy.refuse(fault["seconds"])
                case _:
                    pytest.skip(f"Kafka has no answer like {kind}")

    async def edit(self, key_property: str, key: str, properties: dict[str, Any]) -> None:
        content = msgspec.json.encode({**properties, key_property: key})
        await asyncio.to_thread(self.cluster.write, "contacts", key, content)

    async def remove(self, record_id: str) -> None:
        await asyncio.to_thread(self.cluster.write, "contacts", record_id, None)


class ReadByConsumer(Kafka):
    """The adapter, with a look at its topic that Kafka does not offer by key: what a consumer has by now."""

    def __init__(self, case: KafkaCase, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.case = case

    async def read_back(self, records: list[SentRecord], headers: Headers, *, by_fields: bool = False) -> ReadBack:
        held = await self.case.held(self._topic) if records else {}
        seen: dict[str, Seen] = {}
        differ: dict[str, list[Difference]] = {}
        for record in records:
            there = held.get(record.record_id)
            differences = [] if there is None else list(self._differences(record, there))
            differ |= {record.record_id: differences} if differences else {}
            unlike = Seen.DIFFERS if differences or record.deleted else Seen.MATCHES
            seen[record.record_id] = Seen.ABSENT if there is None else unlike
        keys = {key: key for key, found in seen.items() if found is not Seen.ABSENT}
        return ReadBack(seen=seen, remote_ids=keys, differences=differ, health=Health.WELL)

    def _differences(self, record: SentRecord, there: dict[str, Any]) -> Any:
        named = self._options.fields
        nested = {name: value for name, value in record.attributes.items() if name not in named}
        flat = record.fields | {name: value for name, value in record.attributes.items() if name in named}
        for values, held in ((flat, there), (nested, there.get("attributes", {}))):
            for ours, value in values.items():
                theirs = named.get(ours, ours)
                if theirs is not None and not same(value, held.get(theirs)):
                    yield Difference(theirs, value, held.get(theirs))


def apply(state: dict[str, dict[str, Any]], message: confluent_kafka.Message) -> None:
    key = _key(message)
    document = None if message.value() is None else msgspec.json.decode(message.value())
    if document is None or document.get("deleted"):
        state.pop(key, None)
        return
    before = state.get(key, {})
    attributes = {**before.get("attributes", {}), **document.get("attributes", {})}
    state[key] = {**before, **document} | ({"attributes": attributes} if attributes else {})


def headers_of(message: confluent_kafka.Message) -> dict[str, str]:
    return {name: bytes(value or b"").decode() for name, value in message.headers() or ()}  # type: ignore[union-attr]


def _key(message: confluent_kafka.Message) -> str:
    return bytes(message.key() or b"").decode()


def _filled(document: dict[str, Any]) -> dict[str, Any]:
    """As records are compared: without what is ours, and what is empty."""
    return {name: value for name, value in document.items() if value is not None and name not in ("type", "deleted")}


@asynccontextmanager
async def open_kafka(password: str, **how: Any) -> AsyncIterator[KafkaCase]:
    cluster = await asyncio.to_thread(Cluster)
    proxy = Proxy("127.0.0.1", cluster.port, user=USER, password=password, **how)
    await proxy.start()
    try:
        yield KafkaCase(cluster, proxy)
    finally:
        await proxy.stop()
        await asyncio.to_thread(cluster.close)
