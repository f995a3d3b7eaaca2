"""One reply of several calls, for adapters that need more than one to write a batch."""

from collections.abc import Container
from typing import Final

from app.vocabulary.states import EffectState, ErrorCode
from jobs.crm.exchange import Answer, NoAnswer
from jobs.crm.port import Health, Outcome, Pause, Reply, SentRecord

_WORSE: Final = (Health.WELL, Health.CRM_FAULT, Health.CONNECTION_FAULT, Health.SETUP_FAULT)


class Tally:
    """What became of the records of a push so far; those without an outcome are open."""

    def __init__(self, records: list[SentRecord]) -> None:
        self._contacts = records
        self.outcomes: dict[str, Outcome] = {}
        self.seconds = 0.0
        self.timed_out = False
        self.health = Health.WELL
        self._pause: Pause | None = None
        self._status: int | None = None
        self._detail = ""
        self._code: ErrorCode | None = ErrorCode.DESTINATION_UNAVAILABLE
        """Of those that were not sent."""
        self._whole: set[str] = set()
        """Records that were refused together, and nobody knows which is guilty."""

    @property
    def well(self) -> bool:
        """Whether another call makes sense."""
        return self.health is Health.WELL and self._pause is None

    def open(self) -> list[SentRecord]:
        return [c for c in self._contacts if c.record_id not in self.outcomes]

    def note(self, answer: Answer | NoAnswer) -> None:
        """A call that settled nobody."""
        self.seconds += answer.seconds
        self._status = answer.status

    def add(self, reply: Reply, *, but: Container[str] = ()) -> None:
        """What a call became of, except for these records."""
        self.seconds += reply.seconds
        self.timed_out |= reply.timed_out
        self._status = reply.status
        self._detail = self._detail or reply.detail
        if self._pause is None and reply.pause is not None:
            self._pause = reply.pause
            self._code = next((o.code for o in reply.outcomes if o.state is EffectState.RETRY), self._code)
        self.health = max(self.health, reply.health, key=_WORSE.index)
        settled = {o.record_id: o for o in reply.outcomes if o.record_id not in but}
        self.outcomes |= settled
        if reply.rejected_whole:
            self._whole |= settled.keys()

    def reply(self) -> Reply:
        """Who is open was not sent: a call before failed."""
        return Reply(
            outcomes=[
                self.outcomes.get(c.record_id) or Outcome(c.record_id, EffectState.RETRY, self._code, self._detail)
                for c in self._contacts
            ],
            health=self.health,
            pause=self._pause,
            seconds=self.seconds,
            timed_out=self.timed_out,
            # Some of them alone are sent again together, and refused together again if that is how it is.
            rejected_whole=len(self._contacts) > 1 and self._whole == {c.record_id for c in self._contacts},
            status=self._status,
            detail=self._detail,
        )
