"""Sends the messages of one call, and knows at any moment what became of each.

There is one batch at a time for each partition. A batch that is refused because of a message is sent again without it;
one whose partition has moved, or whose answer was lost, is sent again with the same number, a few times. What has no
answer then may have arrived.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from app.vocabulary.states import EffectState, ErrorCode
from jobs.crm.answers import Verdict, unknown
from jobs.crm.kafka import codes
from jobs.crm.kafka.answers import KafkaJudge
from jobs.crm.kafka.codes import Meaning
from jobs.crm.kafka.connections import Lost, Server
from jobs.crm.kafka.messages import MOST_BYTES, Message, Messages
from jobs.crm.kafka.producer import KafkaError, Producer
from jobs.crm.port import Health

TRIES: Final = 3
"""Of a batch."""
_BACKOFF: Final = 0.1
"""Seconds before the next one; leaders are elected within some tenths."""


class _Batch(msgspec.Struct):
    messages: list[Message]
    size: int = 0
    data: bytes = b""
    tries: int = 0
    in_flight: bool = False
    doubtful: bool = False
    """It was sent, and an answer was lost."""


class Sending:
    """One call. `until`: no batch is tried again then."""

    def __init__(self, producer: Producer, made: Messages, judge: KafkaJudge, *, until: float, deadline: float) -> None:
        self._producer = producer
        self._made = made
        self._judge = judge
        self._until, self._deadline = until, deadline
        self._queues: dict[int, list[_Batch]] = {}
        self.settled: dict[int, Verdict | None] = {}
        """By the place of a record in the call; `None`: it was appended."""
        self.throttled = 0.0
        """Seconds for which a broker wants no more from us."""
        self.timed_out = False
        self._stale = False
        """It must be asked who leads the partitions."""

    async def run(self, messages: Sequence[Message]) -> None:
        """Until each is settled. Canceled at any time, `interrupt` settles the others."""
        for message in messages:
            batches = self._queues.setdefault(self._producer.partition_of(message.key), [_Batch([])])
            size = message.size
            if batches[-1].messages and batches[-1].size + size > MOST_BYTES:
                batches.append(_Batch([]))
            batches[-1].messages.append(message)
            batches[-1].size += size
        while self._queues:
            if self._stale and not await self._look_again():
                return
            by_leader: dict[Server, list[int]] = {}
            for partition in list(self._queues):
                leader = self._producer.leader_of(partition)
                if leader is None:
                    self._queues[partition][0].tries += 1
                    self._judge_code(partition, codes.NO_LEADER, None, ())
                else:
                    by_leader.setdefault(leader, []).append(partition)
            await asyncio.gather(*(self._send(leader, of) for leader, of in by_leader.items()))

    def interrupt(self, verdict: Verdict) -> None:
        """The time is over: what was not sent is to be sent again, what was is in doubt."""
        for batch in (batch for batches in self._queues.values() for batch in batches):
            if batch.in_flight or batch.doubtful:
                self._producer.broken = True
                self._settle(batch, unknown(verdict.detail))
            else:
                self._settle(batch, verdict)
        self._queues.clear()

    async def _look_again(self) -> bool:
        """Whether there is anything left to be sent."""
        self._stale = False
        while True:
            await asyncio.sleep(_BACKOFF)
            try:
                await self._producer.look()
                return True
            except Lost as lost:
                in_doubt = any(batches[0].doubtful for batches in self._queues.values())
                if not in_doubt or time.monotonic() > self._until:
                    self.interrupt(self._judge.lost(lost))
                    return False
            except KafkaError as error:
                self.interrupt(self._judge.refused(error.code, None))
                return False

    async def _send(self, leader: Server, partitions: list[int]) -> None:
        heads = {partition: self._queues[partition][0] for partition in partitions}
        for partition, batch in heads.items():
            batch.data = batch.data or self._made.batch(batch.messages, self._producer.number(partition))
            batch.tries += 1

        def sent() -> None:
            for batch in heads.values():
                batch.in_flight = True

        data = {partition: batch.data for partition, batch in heads.items()}
        try:
            answer = await self._producer.send(leader, data, deadline=self._deadline, sent=sent)
        except Lost as lost:
            final = lost.misconfigured or lost.refused
            self.timed_out |= lost.timed_out
            for partition, batch in heads.items():
                batch.doubtful |= batch.in_flight
                batch.in_flight = False
                self._try_again(partition, self._judge.lost(lost, sent=batch.doubtful), final=final)
            return
        self.throttled = max(self.throttled, min(answer["throttle_time_ms"], 3_600_000) / 1000)
        answered = {each["partition"]: each for topic in answer["topics"] or () for each in topic["partitions"] or ()}
        for partition, batch in heads.items():
            batch.in_flight = False
            found = answered.get(partition)
            if found is None:
                batch.doubtful = True
                self._try_again(partition, unknown(self._judge.words("Kafka's answer does not mention it")))
            else:
                faulty = found.get("record_errors") or ()
                self._judge_code(partition, found["error_code"], found.get("error_message"), faulty)

    def _judge_code(self, partition: int, code: int, message: str | None, faulty: Sequence[dict[str, Any]]) -> None:
        batch = self._queues[partition][0]
        verdict = self._judge.refused(code, message)
        match codes.meaning(code):
            case Meaning.DONE:
                self._producer.count(partition, len(batch.messages))
                self._settle(batch, None)
                self._pop(partition)
            case Meaning.RECORD if not batch.doubtful:
                self._part(partition, batch, codes.said(code, message), faulty)
            case Meaning.MOVED:
                self._try_again(partition, unknown(verdict.detail) if batch.doubtful else verdict)
            case Meaning.SETUP if not batch.doubtful:
                self._settle(batch, verdict)
                self._pop(partition)
                self._stop(verdict)
            case Meaning.SEQUENCE if not batch.doubtful:
                self._producer.broken = True
                self._give_up(partition, verdict)
            case _:
                batch.doubtful = True
                self._try_again(partition, unknown(verdict.detail))

    def _stop(self, verdict: Verdict) -> None:
        """What no try has begun for is not sent."""
        for partition, batches in list(self._queues.items()):
            if not batches[0].in_flight and not batches[0].doubtful:
                self._give_up(partition, verdict)

    def _try_again(self, partition: int, verdict: Verdict, *, final: bool = False) -> None:
        """Unless it was tried often enough."""
        batch = self._queues[partition][0]
        self._stale = True
        if not final and batch.tries < TRIES and time.monotonic() < self._until:
            return
        self._producer.broken |= batch.doubtful
        self._give_up(partition, verdict)

    def _give_up(self, partition: int, verdict: Verdict) -> None:
        """On the batches of a partition; those behind the first were not sent."""
        first, *others = self._queues.pop(partition)
        self._settle(first, verdict)
        unsent = msgspec.structs.replace(verdict, state=EffectState.RETRY, code=ErrorCode.DESTINATION_UNAVAILABLE)
        for batch in others:
            self._settle(batch, unsent)

    def _part(self, partition: int, batch: _Batch, words: str, faulty: Sequence[dict[str, Any]]) -> None:
        """Settle the messages that are to blame, or find them by halves; the others go again."""
        said = {each["batch_index"]: each["batch_index_error_message"] for each in faulty}
        named = {n: words for n, words in said.items() if 0 <= n < len(batch.messages)}
        self._pop(partition)
        if named or len(batch.messages) == 1:
            for n, message in enumerate(batch.messages):
                if n in named or not named:
                    self.settled[message.n] = self._judge.rejected(named.get(n) or words)
            parts = [[message for n, message in enumerate(batch.messages) if named and n not in named]]
        else:
            middle = len(batch.messages) // 2
            parts = [batch.messages[:middle], batch.messages[middle:]]
        rest = [_Batch(part) for part in parts if part]
        if rest:
            self._queues[partition] = rest + self._queues.get(partition, [])
        if rest and time.monotonic() > self._until:
            late = "there was no time to find the faulty messages of its batch"
            self._give_up(partition, Verdict(health=Health.WELL, detail=late))

    def _pop(self, partition: int) -> None:
        batches = self._queues[partition]
        batches.pop(0)
        if not batches:
            del self._queues[partition]

    def _settle(self, batch: _Batch, verdict: Verdict | None) -> None:
        for message in batch.messages:
            self.settled[message.n] = verdict
