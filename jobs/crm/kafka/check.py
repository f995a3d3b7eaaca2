"""A look at a topic that writes nothing: connection and login, the topic, the right to write, and every leader."""

import time
from typing import Final

from aiokafka.protocol.admin import DescribeConfigsRequest_v0

from app.destinations.testing.rules import Step
from jobs.crm.kafka.answers import VENDOR, KafkaJudge
from jobs.crm.kafka.connections import Lost
from jobs.crm.kafka.producer import KafkaError, Producer

_LEAST_IN_SYNC: Final = "min.insync.replicas"
_TOPIC: Final = 2
"""The type of a resource with a configuration."""
_MOST_LEADERS: Final = 20
"""That are connected to."""
_RISKY: Final = (
    "a broker that is down stops all writes there, because min.insync.replicas ({least}) is not less than its "
    "replicas ({replicas}); add replicas, or accept it"
)
_ADVERTISED: Final = (
    "It is a broker that leads partitions, under the name and port that the cluster gives it: look at "
    "advertised.listeners, and whether its certificate has that name."
)


class Check:
    """The steps of one test."""

    def __init__(self, producer: Producer, judge: KafkaJudge, topic: str) -> None:
        self._producer = producer
        self._judge = judge
        self._topic = topic
        self._steps: list[Step] = []
        self._since = time.monotonic()
        self._name = "connect"

    async def run(self) -> list[Step]:
        """Up to the first that fails."""
        try:
            await self._run()
        except Lost as lost:
            words = self._judge.lost(lost).detail
            self._add(False, f"{words}. {_ADVERTISED}" if self._name == "brokers" else words)
        except KafkaError as error:
            self._add(False, self._judge.missing(error.code).detail)
        return self._steps

    def interrupted(self, seconds: float) -> list[Step]:
        """All steps, when the time was over."""
        self._add(False, self._judge.lost(Lost(f"timed out after {seconds:.1f} s")).detail)
        return self._steps

    async def _run(self) -> None:
        producer = self._producer
        await producer.greet()
        how = "encrypted by TLS" if producer.encrypted else "without TLS"
        self._add(True, f"{VENDOR} let us in, {how}.")
        self._name = "topic"
        await producer.look()
        partitions = producer.partitions.values()
        replicas = min(len(each["replicas"] or ()) for each in partitions)
        leaders = {producer.leader_of(number) for number in producer.partitions}
        if None in leaders:
            self._add(False, f"Partitions of {self._topic} have no leader now; what goes there is tried again.")
        else:
            self._add(True, f"{self._topic} has {len(partitions)} partitions with {replicas} replicas each, or more.")
        self._name = "write"
        await producer.prepare()
        self._add(True, f"{VENDOR} takes us as a producer; nothing was written.")
        self._name = "brokers"
        found = sorted(leader for leader in leaders if leader is not None)
        for leader in found[:_MOST_LEADERS]:
            await producer.reach(leader)
        self._add(True, f"Each of the {len(found[:_MOST_LEADERS])} brokers that lead partitions can be reached.")
        await self._look_at_replicas(replicas)

    async def _look_at_replicas(self, replicas: int) -> None:
        """As far as the user may read settings; it is no fault of the destination if not."""
        try:
            wanted = [(_TOPIC, self._topic, [_LEAST_IN_SYNC])]
            answer = await self._producer.ask_any(DescribeConfigsRequest_v0, wanted)
        except Lost:
            return
        entries = [entry for each in answer["resources"] or () for entry in each["config_entries"] or ()]
        least = next((entry["config_value"] for entry in entries if entry["config_names"] == _LEAST_IN_SYNC), None)
        if least is None or not least.isdecimal():
            return
        self._name = "replicas"
        safe = replicas == 1 or int(least) < replicas
        words = f"{least} replicas must have a message before it is acknowledged"
        risk = "" if safe else f"; {_RISKY.format(least=least, replicas=replicas)}"
        self._add(True if safe else None, f"{words}{risk}.")

    def _add(self, ok: bool | None, detail: str) -> None:
        since, self._since = self._since, time.monotonic()
        milliseconds = round((self._since - since) * 1000)
        self._steps.append(Step(name=self._name, ok=ok, detail=detail, milliseconds=milliseconds))
