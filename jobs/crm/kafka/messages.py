"""Messages of records: our key, a JSON document or nothing, and headers; and batches of them as brokers store them."""

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from app.destinations.kinds import KafkaOptions
from app.resources.declaration import Resource
from app.tracing.context import TraceContext
from jobs.crm.exchange import identify
from jobs.crm.mapping import FieldMap
from jobs.crm.port import Headers, SentRecord

MOST_BYTES: Final = 900_000
"""Of a batch before it is compressed: brokers take a little over 1,000,000 (max.message.bytes)."""
_OVERHEAD: Final = 40
"""Bytes of a message beside its parts, at most."""
_UNBOUNDED: Final = 1 << 30
_MAGIC: Final = 2
_CODECS: Final = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
_encode: Final = msgspec.json.Encoder(decimal_format="number").encode


class Message(NamedTuple):
    n: int
    """The place of its record in the call."""
    key: bytes
    value: bytes | None
    headers: list[tuple[str, bytes]]

    @property
    def size(self) -> int:
        named = sum(len(name) + len(value) + 10 for name, value in self.headers)
        return len(self.key) + len(self.value or b"") + named + _OVERHEAD


class Messages:
    """Makes those of one destination, for records of one type."""

    def __init__(self, options: KafkaOptions, resource: Resource) -> None:
        self._type = resource.name
        self._tombstones = options.deleted == "tombstone"
        self._fixed = [(name, text.encode()) for name, text in options.headers.items()]
        self._codec = _CODECS[options.compression]
        self._map = FieldMap(options, resource, key="id", name_of=lambda _: None)
        self._named = options.fields_of(resource.name)

    def make(self, records: Sequence[SentRecord], headers: Headers, trace: TraceContext) -> list[Message]:
        of_call = {**identify(headers), **trace.fields()}
        common = [(name.lower(), value.encode()) for name, value in of_call.items()] + self._fixed
        return [
            Message(
                n,
                record.record_id.encode(),
                self._value(record),
                [("type", self._type.encode()), ("version", str(record.version).encode()), *common],
            )
            for n, record in enumerate(records)
        ]

    def _value(self, record: SentRecord) -> bytes | None:
        if record.deleted and self._tombstones:
            return None
        own: dict[str, Any] = {"id": record.record_id, "type": self._type, "version": record.version}
        if record.deleted:
            return _encode(own | {"deleted": True})
        document = own | self._map.sources(record) | own
        rest = {name: value for name, value in record.attributes.items() if name not in self._named}
        if rest:
            document["attributes"] = rest
        return _encode(document)

    def batch(self, messages: Iterable[Message], number: tuple[int, int, int]) -> bytes:
        """As it is sent, numbered (producer, epoch, sequence)."""
        builder = DefaultRecordBatchBuilder(_MAGIC, self._codec, 0, *number, _UNBOUNDED)
        for offset, message in enumerate(messages):
            builder.append(offset, None, message.key, message.value, message.headers)
        return bytes(builder.build())
