"""A topic of the tenant's own in Kafka: a message for each change of a record, acknowledged one by one.

The key is our id; the value is a JSON document with what an import named, and nothing (a tombstone) for a removed
record; headers have type, version, event id, request id and trace (`jobs.crm.kafka.messages`). A call sends one batch
for each partition to its leader and waits until all replicas in sync have it (`jobs.crm.kafka.sending`).

Kafka cannot be asked for a record by its key, so nothing is read back: a call whose answer was lost for good is made
again, or left to an operator (`repeatable`). The options are `app.destinations.kinds.KafkaOptions`.
"""

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final, Unpack

from app.destinations.credentials import BasicCredentials, NoCredentials
from app.destinations.kinds import KafkaOptions
from app.destinations.options import read_options
from app.destinations.testing.rules import Step
from app.resources.declaration import Resource
from app.tracing import spans
from app.tracing.spans import Kind
from app.vocabulary.states import EffectState, ErrorCode
from jobs.crm.answers import Verdict, step
from jobs.crm.kafka import check
from jobs.crm.kafka.answers import VENDOR, KafkaJudge
from jobs.crm.kafka.connections import Dialer, Login, Lost, servers_of
from jobs.crm.kafka.messages import Message, Messages
from jobs.crm.kafka.producer import KafkaError, Producer
from jobs.crm.kafka.sending import Sending
from jobs.crm.port import (
    Access,
    CrmFactory,
    Headers,
    Health,
    Keep,
    Listing,
    Outcome,
    Pause,
    ReadBack,
    Reply,
    SentRecord,
    keep_nothing,
)
from jobs.outbound.idle import IdlePool
from jobs.outbound.ssrf import GuardedConnector

BATCH_SIZE: Final = 500
_AGAIN: Final = 0.7
"""Share of the total timeout after which no batch is sent once more."""
_LEAST_PAUSE: Final = 0.1
_CANNOT: Final = "Kafka cannot be asked for records by their keys"
_WORSE: Final = (Health.WELL, Health.CRM_FAULT, Health.CONNECTION_FAULT, Health.SETUP_FAULT)


class Kafka:
    """One tenant's connection to one topic (`jobs.crm.port.Crm`)."""

    reads_back = False
    archives = True
    lists = False
    bulk = None
    updates_apart = False
    learns = True  # its producers are kept

    def __init__(self, *, resource: Resource, options: dict[str, Any], **access: Unpack[Access]) -> None:
        chosen = self._options = read_options(options, KafkaOptions)
        self.batch_size = chosen.batch_size or BATCH_SIZE
        self.repeatable = chosen.repeatable
        self.appends = chosen.repeatable and not chosen.shared
        self._timeouts = access["timeouts"]
        self._topic = chosen.topic.replace("{type}", resource.name)
        self._servers = servers_of(access["base_url"])
        login = _login(access["authorizer"].credentials, chosen.sasl_mechanism)
        connector = access["session"].connector
        if not isinstance(connector, GuardedConnector):
            raise TypeError("the session has no guarded connector")
        self._dialer = Dialer(
            connector, tls=chosen.tls, roots=chosen.ssl_root_certificate, login=login, timeout=self._timeouts.connect
        )
        self._messages = Messages(chosen, resource)
        user = login.user if login is not None else None
        self._judge = KafkaJudge(access["authorizer"], lambda: datetime.now(UTC), self._topic, user)
        self._idle: IdlePool[Producer] = IdlePool()
        connector.end_with_me(self._idle)

    async def push(self, records: list[SentRecord], headers: Headers, keep: Keep = keep_nothing) -> Reply:
        """See `jobs.crm.port.Crm.push`. Nothing is looked for: a topic has no records, only messages."""
        return await self._send("send", records, headers)

    async def archive(self, records: list[SentRecord], headers: Headers) -> Reply:
        """See `jobs.crm.port.Crm.archive`. Whether there was a record does not matter to a topic."""
        return await self._send("send tombstones", records, headers)

    async def read_back(self, records: list[SentRecord], headers: Headers, *, by_fields: bool = False) -> ReadBack:
        """It cannot."""
        return ReadBack(seen=None, health=Health.WELL, detail=_CANNOT)

    async def list_keys(self, after: str | None, headers: Headers) -> Listing:
        """It cannot."""
        return Listing(keys=None, health=Health.WELL, detail=_CANNOT)

    async def check(self, headers: Headers) -> list[Step]:
        """See `jobs.crm.kafka.check`."""
        producer = self._producer()
        looked = check.Check(producer, self._judge, self._topic)
        with spans.span("check", Kind.CLIENT, headers.trace, _attributes("check", None)) as span:
            try:
                async with asyncio.timeout(self._timeouts.total):
                    steps = await looked.run()
            except TimeoutError:
                steps = looked.interrupted(self._timeouts.total)
            finally:
                producer.close()
            if any(step.ok is False for step in steps):
                span.fail("failed")
        return steps

    async def write_test(self, headers: Headers) -> list[Step]:
        """Send a message of a record that nobody has, and its tombstone: what a topic has remains there."""
        steps = []
        for version, deleted in ((1, False), (2, True)):
            record = SentRecord(record_id=headers.event_id, version=version, deleted=deleted)
            reply = await self._send("send", [record], headers)
            [outcome] = reply.outcomes
            ok, name = outcome.state is EffectState.OK, "take away" if deleted else "write"
            what = "tombstone" if deleted else "message"
            words = f"The {what} of {record.record_id} was acknowledged." if ok else outcome.detail
            steps.append(step(name, ok, words, reply))
            if not ok:
                break
        return steps

    async def _send(self, operation: str, records: list[SentRecord], headers: Headers) -> Reply:
        if not records:
            return Reply(outcomes=[], health=Health.WELL)
        started = time.monotonic()
        timed_out = False
        deadline = started + self._timeouts.total
        producer = self._idle.take() or self._producer()
        sending = Sending(
            producer, self._messages, self._judge, until=started + _AGAIN * self._timeouts.total, deadline=deadline
        )
        with spans.span(operation, Kind.CLIENT, headers.trace, _attributes(operation, len(records))) as span:
            messages = self._messages.make(records, headers, span.context)
            try:
                async with asyncio.timeout_at(asyncio.get_running_loop().time() + self._timeouts.total):
                    verdict = await _prepared(producer, self._judge)
                    if verdict is None:
                        await sending.run(messages)
            except TimeoutError:
                timed_out = True
                lost = Lost(f"timed out after {time.monotonic() - started:.1f} s", timed_out=True)
                verdict = self._judge.lost(lost)
                sending.interrupt(verdict)
            except BaseException:
                producer.close()
                raise
            if timed_out or producer.broken or verdict is not None:
                producer.close()
            else:
                self._idle.keep(producer)
            reply = self._reply(records, messages, sending, verdict, timed_out=timed_out, since=started)
            if any(outcome.state is not EffectState.OK for outcome in reply.outcomes):
                span.fail("refused" if reply.health is Health.WELL else reply.health.value)
        return reply

    def _reply(
        self,
        records: list[SentRecord],
        messages: Sequence[Message],
        sending: Sending,
        verdict: Verdict | None,
        *,
        timed_out: bool,
        since: float,
    ) -> Reply:
        """`verdict`: of those that were not settled."""
        settled = [sending.settled.get(n, verdict) for n in range(len(records))]
        outcomes = [
            self._appended(record)
            if found is None
            else Outcome(record.record_id, found.state, found.code, found.detail)
            for record, found in zip(records, settled, strict=True)
        ]
        faults = [found for found in settled if found is not None]
        worst = max(faults, key=lambda found: _WORSE.index(found.health), default=None)
        pause = next((found.pause for found in faults if found.pause is not None), None)
        if pause is None and sending.throttled > _LEAST_PAUSE:
            words = f"{VENDOR} throttles what we send (quota of the user or of the client id)"
            pause = Pause(sending.throttled, words, ErrorCode.DESTINATION_RATE_LIMIT)
        return Reply(
            outcomes=outcomes,
            health=worst.health if worst is not None else Health.WELL,
            pause=pause,
            seconds=time.monotonic() - since,
            timed_out=timed_out or sending.timed_out,
            detail=worst.detail if worst is not None else "",
        )

    def _appended(self, record: SentRecord) -> Outcome:
        """The first message of a key makes its record, where nobody else writes any."""
        first = record.remote_id is None and not record.deleted
        created = True if first and not self._options.shared else None
        return Outcome(record.record_id, EffectState.OK, remote_id=record.record_id, created=created)

    def _producer(self) -> Producer:
        return Producer(self._dialer, self._servers, self._topic)


async def _prepared(producer: Producer, judge: KafkaJudge) -> Verdict | None:
    """`None`: it is; otherwise why nothing can be sent."""
    try:
        await producer.prepare()
    except Lost as lost:
        return judge.lost(lost)
    except KafkaError as error:
        return judge.missing(error.code)
    return None


def _login(credentials: Any, mechanism: str) -> Login | None:
    """Raises `ValueError`: they cannot be used."""
    match credentials:
        case BasicCredentials(username=user, password=password):
            return Login(mechanism, user, password)
        case NoCredentials():
            return None
    raise ValueError("the credentials must be a user and a password (basic), or none")


def _attributes(operation: str, count: int | None) -> dict[str, str | int | None]:
    attributes: dict[str, str | int | None] = {"messaging.system": "kafka", "messaging.operation.name": operation}
    if count is None:
        return attributes
    return spans.messaging(operation, "send", count) | attributes


connect: Final[CrmFactory] = Kafka
