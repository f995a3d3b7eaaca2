"""A producer of one topic: who leads its partitions, an identity that brokers count the batches of, and connections.

Each call has one for itself. Batches of a partition are numbered (KIP-98), so one whose answer was lost can be sent
again by the same producer: a broker appends it once.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final

from aiokafka.partitioner import DefaultPartitioner
from aiokafka.protocol.admin import ApiVersionRequest_v0
from aiokafka.protocol.metadata import MetadataRequest_v4, MetadataRequest_v5
from aiokafka.protocol.produce import ProduceRequest_v3, ProduceRequest_v5, ProduceRequest_v7, ProduceRequest_v8
from aiokafka.protocol.transaction import InitProducerIdRequest_v0

from jobs.crm.kafka import codes
from jobs.crm.kafka.connections import Dialer, Lost, Server, ask
from jobs.crm.kafka.wire import RefusedError, Said, Wire

KNOWN_SECONDS: Final = 300.0
"""For which it is known who leads a partition, unless an answer says otherwise."""
MOST_CONNECTIONS: Final = 32
"""Of one producer. A cluster may name as many brokers as it likes."""
_FOR_EVER: Final = 2**31 - 1
_ALL: Final = -1
_PRODUCE: Final = (ProduceRequest_v3, ProduceRequest_v5, ProduceRequest_v7, ProduceRequest_v8)
_METADATA: Final = (MetadataRequest_v4, MetadataRequest_v5)
_choose: Final = DefaultPartitioner()


class KafkaError(Exception):
    """A broker says that it does not work like this."""

    def __init__(self, code: int) -> None:
        super().__init__(codes.said(code))
        self.code = code


class Producer:
    """Its methods raise `Lost` and `KafkaError`."""

    def __init__(self, dialer: Dialer, servers: list[Server], topic: str) -> None:
        self._dialer = dialer
        self._servers = servers
        self._topic = topic
        self._wires: dict[Server, Wire] = {}
        self._in_use: set[Server] = set()
        self._free = asyncio.Semaphore(MOST_CONNECTIONS)
        self._brokers: dict[int, Server] = {}
        self.partitions: dict[int, dict[str, Any]] = {}
        """By number, as metadata describe them."""
        self._numbers: list[int] = []
        self._known_until = 0.0
        self._identity: tuple[int, int] | None = None
        self._sequences: dict[int, int] = {}
        self.broken = False
        """Nobody knows any more what brokers have counted: it is of no use for another call."""

    async def greet(self) -> None:
        """Have a connection to whichever broker lets us in."""
        await self.ask_any(ApiVersionRequest_v0)

    async def prepare(self) -> None:
        """Know whom to send to, and who sends."""
        if time.monotonic() > self._known_until:
            await self.look()
        if self._identity is None:
            answer = await self.ask_any(InitProducerIdRequest_v0, None, _FOR_EVER)
            if answer["error_code"]:
                raise KafkaError(answer["error_code"])
            self._identity = answer["producer_id"], answer["producer_epoch"]

    async def look(self) -> None:
        """Ask who leads the partitions. A topic that does not exist is not made by that."""
        answer = await self.ask_any(_METADATA, [self._topic], False)
        found = [topic for topic in answer["topics"] or () if topic["topic"] == self._topic]
        if len(found) != 1 or found[0]["error_code"]:
            raise KafkaError(found[0]["error_code"] if found else codes.NO_TOPIC)
        self._brokers = {
            each["node_id"]: (each["host"], each["port"])
            for each in answer["brokers"] or ()
            if each["host"] and 0 < each["port"] < 1 << 16
        }
        self.partitions = {each["partition"]: each for each in found[0]["partitions"] or ()}
        self._numbers = sorted(self.partitions)
        if not self.partitions:
            raise KafkaError(codes.NO_LEADER)
        self._known_until = time.monotonic() + KNOWN_SECONDS

    def partition_of(self, key: bytes) -> int:
        """As Kafka's own clients choose one."""
        chosen: int = _choose(key, self._numbers, [])
        return chosen

    def leader_of(self, partition: int) -> Server | None:
        """`None`: it has none, or nobody knows where it is."""
        found = self.partitions.get(partition)
        return None if found is None else self._brokers.get(found["leader"])

    def number(self, partition: int) -> tuple[int, int, int]:
        """What the next batch of a partition is numbered with: producer, epoch, sequence."""
        assert self._identity is not None
        return *self._identity, self._sequences.get(partition, 0)

    def count(self, partition: int, appended: int) -> None:
        """So many messages were appended."""
        self._sequences[partition] = (self._sequences.get(partition, 0) + appended) % 2**31

    async def send(
        self, leader: Server, batches: dict[int, bytes], *, deadline: float, sent: Callable[[], None]
    ) -> Said:
        """One request with a batch for each partition, acknowledged by all replicas that are in sync; `sent` is called
        when its first byte goes out. Raises `Lost`."""
        async with self._free:
            wire = await self._connected(leader)
            left = max(deadline - time.monotonic(), 0.001)
            topics = [(self._topic, list(batches.items()))]
            try:
                # A broker that waits for its replicas answers a little before nobody listens any more.
                request = wire.choose(*_PRODUCE)(None, _ALL, max(round(left * 800), 1), topics)
            except RefusedError as error:
                raise Lost(str(error), misconfigured=True) from error
            self._in_use.add(leader)
            try:
                sent()
                return await ask(wire.ask(request), left)
            finally:
                self._in_use.discard(leader)

    async def reach(self, server: Server) -> None:
        """Have a connection there."""
        await self._connected(server)

    async def ask_any(self, request: Any, *arguments: Any) -> Said:
        """An answer of whichever broker gives one; `request`: a class, or those of several versions."""
        for server, kept in list(self._wires.items()):
            try:
                return await self._ask(kept, request, arguments)
            except Lost:
                self._wires.pop(server, None)  # it ended while nobody looked
        failure: Lost | None = None
        for server in self._servers:
            try:
                return await self._ask(await self._connected(server), request, arguments)
            except Lost as error:
                failure = error if failure is None or not failure.misconfigured else failure
        assert failure is not None
        raise failure

    async def _ask(self, wire: Wire, request: Any, arguments: tuple[Any, ...]) -> Said:
        async def call() -> Said:
            versions = request if isinstance(request, tuple) else (request,)
            return await wire.ask(wire.choose(*versions)(*arguments))

        return await ask(call(), self._dialer.timeout)

    async def _connected(self, server: Server) -> Wire:
        wire = self._wires.get(server)
        if wire is None or wire.closed:
            while len(self._wires) >= MOST_CONNECTIONS and (idle := self._wires.keys() - self._in_use - {server}):
                self._wires.pop(idle.pop()).abort()
            wire = self._wires[server] = await self._dialer.connect(server)
        return wire

    @property
    def encrypted(self) -> bool:
        return any(wire.encrypted for wire in self._wires.values())

    @property
    def closed(self) -> bool:
        return self.broken

    def close(self) -> None:
        while self._wires:
            self._wires.popitem()[1].abort()
