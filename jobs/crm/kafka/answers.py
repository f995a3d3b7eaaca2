"""What Kafka's answers mean for the records of a call."""

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

from app.vocabulary.states import EffectState, ErrorCode
from jobs.crm.answers import Judge, Verdict, unknown, with_remedy
from jobs.crm.exchange import Answer, NoAnswer
from jobs.crm.kafka import codes
from jobs.crm.kafka.codes import Meaning
from jobs.crm.kafka.connections import Lost
from jobs.crm.port import Authorizer, Health

VENDOR: Final = "Kafka"


class Failure(NoAnswer, frozen=True, kw_only=True):
    """A call that did not go as it should, and the verdict on it."""

    verdict: Verdict


class KafkaJudge(Judge):
    """Judges what brokers say of one topic, to one user."""

    vendor = VENDOR

    def __init__(self, authorizer: Authorizer, now: Callable[[], datetime], topic: str, user: str | None) -> None:
        super().__init__(authorizer, now)
        self._topic = topic
        self._user = user

    def verdict(self, answer: Answer | NoAnswer, records: Any = ()) -> Verdict:
        return answer.verdict if isinstance(answer, Failure) else super().verdict(answer, records)

    def lost(self, lost: Lost, *, sent: bool = False) -> Verdict:
        """`sent`: nobody knows whether the records arrived."""
        if lost.misconfigured and not sent:
            return Verdict(health=Health.CONNECTION_FAULT, detail=self.words(f"no connection: {lost.detail}"))
        return super().verdict(NoAnswer(sent=sent, detail=lost.detail, seconds=0.0, refused=lost.refused and not sent))

    def refused(self, code: int, message: str | None) -> Verdict:
        """A code that speaks of the topic, of a partition or of the producer."""
        detail = self.words(f"{VENDOR}: {codes.said(code, message)}")
        match codes.meaning(code):
            case Meaning.SETUP:
                return self.lacking_setup(code, detail)
            case Meaning.DOUBT:
                return unknown(detail)
        return Verdict(health=Health.CRM_FAULT, detail=detail)

    def missing(self, code: int) -> Verdict:
        """A code that came before anything was sent: a topic that is not there is made by somebody."""
        detail = self.words(f"{VENDOR} has no topic {self._topic}, or shows it to nobody like us: {codes.said(code)}")
        if code == codes.NO_TOPIC:
            return self.lacking_setup(code, detail)
        if codes.meaning(code) is Meaning.SETUP:
            return self.refused(code, None)
        return Verdict(health=Health.CRM_FAULT, detail=self.words(f"{VENDOR}: {codes.said(code)}"))

    def lacking_setup(self, code: int, detail: str) -> Verdict:
        remedy = codes.remedy(code, self._topic, self._user)
        return Verdict(health=Health.SETUP_FAULT, detail=with_remedy(detail, remedy))

    def rejected(self, words: str) -> Verdict:
        """A message that is refused for good."""
        detail = self.words(f"{VENDOR} refused it: {words}")
        state, code = EffectState.FAILED, ErrorCode.DESTINATION_REJECTED
        return Verdict(health=Health.WELL, detail=detail, state=state, code=code)
