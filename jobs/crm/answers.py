"""What an answer that does not speak of single records, or none at all, means for the whole call.

The rules that CRMs have in common; each adapter's judge adds what is its vendor's own.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar, Final

import msgspec

from app.destinations.testing.rules import Step
from app.vocabulary.states import EffectState, ErrorCode
from jobs.crm.exchange import Answer, NoAnswer
from jobs.crm.port import Authorizer, CallResult, Health, Listing, Outcome, Pause, ReadBack, Reply, SentRecord
from jobs.outbound.messages import retry_after, sanitize_message

REFUSALS: Final = frozenset({400, 409, 413, 414, 422})
"""Statuses that speak of what was sent, not of who sent it or where."""

REFUSED_SECONDS: Final = 30.0
"""After which a destination whose address must not be called is tried again: its name may resolve to another one,
or the operator may have named its network."""
NO_TOKEN_SECONDS: Final = 5.0
"""After which a token is asked for again that could not be had."""
LIMIT_SECONDS: Final = 10.0
LOCK_SECONDS: Final = 2.0
SHORTEST_PAUSE: Final = 0.5
READING_REFUSED: Final = (
    "Reading records back is refused, so what was sent without an answer cannot be settled; "
    "let the token read records, and check the options of the destination"
)
NOBODY: Final = "tranche-check-nobody"
"""A key that no record has."""
LONGEST_PAUSE: Final = 90_000.0
"""A day of 25 hours."""


def as_a_whole(result: CallResult) -> dict[str, Any]:
    """What the call met as a whole, for a result of another kind."""
    return {name: getattr(result, name) for name in CallResult.__struct_fields__}


def unlisted(back: ReadBack) -> Listing:
    """A page of a list that could not be read, for the same reasons as a read-back."""
    return Listing(keys=None, **as_a_whole(back))


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What became of all records of a call alike."""

    health: Health
    detail: str
    state: EffectState = EffectState.RETRY
    code: ErrorCode = ErrorCode.DESTINATION_UNAVAILABLE
    pause: Pause | None = None
    refused: bool = False
    """The batch as such was refused: with several records nobody knows which is guilty."""


class Wait(msgspec.Struct, frozen=True, kw_only=True):
    """Nothing was done, come back later: after `seconds`, or when backoff says so."""

    seconds: float | None
    health: Health = Health.WELL
    code: ErrorCode = ErrorCode.DESTINATION_UNAVAILABLE


class Judge:
    """Judges the answers of one destination."""

    vendor: ClassVar[str] = "the destination"

    def __init__(self, authorizer: Authorizer, now: Callable[[], datetime]) -> None:
        self._authorizer = authorizer
        self.now = now

    def said(self, body: Any) -> str:
        """The vendor's own words in a body, if there are any."""
        return message(body) if isinstance(body, dict) else ""

    def is_setting(self, answer: Answer, body: Any) -> bool:
        """Whether a refusal speaks of the connection, whatever its status: that is no record's fault."""
        return False

    def remedy(self, body: Any, records: Sequence[SentRecord]) -> str | None:
        """What mends the account, if a refusal says that it lacks something that these records need there."""
        return None

    def lacking(self, records: Sequence[SentRecord], errors: Iterable[Any]) -> str | None:
        """The words and the remedy, where errors of single records say that the account lacks something."""
        for error in errors:
            remedy = self.remedy(error, records)
            if remedy is not None:
                return with_remedy(self.words(f"{self.vendor} refused records: {self.said(error)}"), remedy)
        return None

    def asked(self, answer: Answer) -> float | None:
        """Seconds that its `Retry-After` asks for."""
        return retry_after(answer.headers, self.now())

    def wait(self, answer: Answer, body: Any) -> Wait | None:
        """Whether nothing was done and the call may come again later."""
        asked = self.asked(answer)
        if answer.status == 429:
            limit = self.limit_seconds(body) if asked is None else asked
            return Wait(seconds=limit, code=ErrorCode.DESTINATION_RATE_LIMIT)
        if answer.status == 423:
            return Wait(seconds=max(asked or 0.0, LOCK_SECONDS))
        if answer.status == 503:
            return Wait(seconds=asked, health=Health.CRM_FAULT)
        return None

    def limit_seconds(self, body: Any) -> float:
        """How long to wait after a 429 without `Retry-After`."""
        return LIMIT_SECONDS

    def verdict(self, answer: Answer | NoAnswer, records: Sequence[SentRecord] = ()) -> Verdict:
        """The meaning of everything but a 2xx that can be read."""
        if isinstance(answer, NoAnswer) and answer.refused:
            detail = self.words(f"{self.vendor} is not called: {answer.detail}")
            pause = Pause(REFUSED_SECONDS, detail, ErrorCode.DESTINATION_UNAVAILABLE)
            return Verdict(health=Health.CONNECTION_FAULT, detail=detail, pause=pause)
        if isinstance(answer, NoAnswer) and answer.no_token is not None:
            detail = self.words(answer.detail)
            if answer.no_token.remedy:
                return Verdict(health=Health.SETUP_FAULT, detail=with_remedy(detail, answer.no_token.remedy))
            pause = Pause(NO_TOKEN_SECONDS, detail, ErrorCode.DESTINATION_UNAVAILABLE)
            return Verdict(health=Health.CONNECTION_FAULT, detail=detail, pause=pause)
        if isinstance(answer, NoAnswer):
            detail = self.words(f"no answer from {self.vendor}: {answer.detail}")
            return unknown(detail) if answer.sent else Verdict(health=Health.CRM_FAULT, detail=detail)
        body = answer.json()
        said = self.said(body) or answer.trouble
        detail = self.words(f"{self.vendor} answered {answer.status}" + (f": {said}" if said else ""))
        status = answer.status
        if status < 300:  # its body is not shown: it may be an answer to something else altogether
            trouble = f": {answer.trouble}," if answer.trouble else ""
            return unknown(self.words(f"{self.vendor} answered {status}{trouble} with a body that cannot be used"))
        wait = self.wait(answer, body)
        if wait is not None:
            return Verdict(health=wait.health, code=wait.code, detail=detail, pause=_pause(wait, detail))
        remedy = self.remedy(body, records) if status < 500 else None
        if remedy is not None:
            return Verdict(health=Health.SETUP_FAULT, detail=with_remedy(detail, remedy))
        if status in REFUSALS and not self.is_setting(answer, body):
            return Verdict(health=Health.WELL, detail=detail, refused=True)
        if status < 500 and status != 408:  # token, account, address or setting; a redirect is not followed
            return Verdict(health=Health.CONNECTION_FAULT, detail=detail)
        return unknown(detail)  # a gateway may say this in front of a CRM that did the work

    def reply(self, records: list[SentRecord], answer: Answer | NoAnswer) -> Reply:
        """One verdict for all: the answer does not speak of single records."""
        verdict = self.verdict(answer, records)
        state, code = verdict.state, verdict.code
        whole = verdict.refused and len(records) > 1
        if verdict.refused:
            state, code = EffectState.RETRY if whole else EffectState.FAILED, ErrorCode.DESTINATION_REJECTED
        outcomes = [Outcome(c.record_id, state, code, verdict.detail) for c in records]
        return Reply(outcomes=outcomes, rejected_whole=whole, **_met(verdict, answer))

    def unread(self, answer: Answer | NoAnswer) -> ReadBack:
        """A read that failed. One that is refused would be refused again: what was sent could never be settled."""
        return ReadBack(seen=None, **_met(self._reading(answer), answer))

    def not_done(self, records: list[SentRecord], answer: Answer | NoAnswer) -> Reply:
        """A read that had to come before the write failed, so nothing was written."""
        verdict = self._reading(answer)
        code = verdict.code if verdict.pause else ErrorCode.DESTINATION_UNAVAILABLE
        outcomes = [Outcome(c.record_id, EffectState.RETRY, code, verdict.detail) for c in records]
        return Reply(outcomes=outcomes, **_met(verdict, answer))

    def too_many(self, records: list[SentRecord], answer: Answer | NoAnswer) -> Reply:
        """A look for these records found more than one answer lists. Nothing was written; halves of the batch show
        whose value so many have."""
        refusal = (EffectState.RETRY, ErrorCode.DESTINATION_REJECTED, f"more records match than {self.vendor} lists")
        outcomes = [Outcome(c.record_id, *refusal) for c in records]
        return Reply(
            outcomes=outcomes, rejected_whole=True, health=Health.WELL, seconds=answer.seconds, status=answer.status
        )

    def _reading(self, answer: Answer | NoAnswer) -> Verdict:
        verdict = self.verdict(answer)
        if not verdict.refused:
            return verdict
        detail = with_remedy(verdict.detail, READING_REFUSED)
        return msgspec.structs.replace(verdict, health=Health.SETUP_FAULT, detail=detail)

    def words(self, text: str) -> str:
        """Fit to be shown: short, on one line, without secrets."""
        words = sanitize_message(text, *self._authorizer.secrets)
        return words[0].upper() + words[1:] if words.startswith("the ") else words


def _met(verdict: Verdict, answer: Answer | NoAnswer) -> dict[str, Any]:
    made = {"seconds": answer.seconds, "status": answer.status, "timed_out": answer.timed_out}
    return {"health": verdict.health, "pause": verdict.pause, "detail": verdict.detail, **made}


def unknown(detail: str) -> Verdict:
    """The records may have arrived."""
    return Verdict(health=Health.CRM_FAULT, detail=detail, state=EffectState.UNKNOWN, code=ErrorCode.OUTCOME_UNKNOWN)


def with_remedy(detail: str, remedy: str) -> str:
    """The vendor's words, and after them what to do."""
    return f"{detail.rstrip('. ')}. {remedy}."


def rename_or_exclude(do: str, ours: str) -> str:
    """What mends a field that the account does not take; `do` ends with what is given another name."""
    return (
        f'{do} "{ours}" another name there (tranche destinations change NAME --field "{ours}=THEIRS"), '
        f'or exclude it (--field "{ours}=")'
    )


def nameless(record: SentRecord) -> Outcome:
    """A record that cannot be archived there while its id is unknown; reading it back finds it."""
    words = "the id of its record is not known yet"
    return Outcome(record.record_id, EffectState.UNKNOWN, ErrorCode.OUTCOME_UNKNOWN, words)


def _pause(wait: Wait, detail: str) -> Pause | None:
    if wait.seconds is None:
        return None
    return Pause(min(max(wait.seconds, SHORTEST_PAUSE), LONGEST_PAUSE), detail)


def objects(value: object) -> Iterator[dict[str, Any]]:
    """The objects of what should be a list of them."""
    if isinstance(value, list):
        yield from (item for item in value if isinstance(item, dict))


def message(body: Mapping[str, Any]) -> str:
    """The vendor's own words, with those of the nested errors where there are any."""
    words = [body.get("message"), *(error.get("message") for error in objects(body.get("errors")))]
    said = list(dict.fromkeys(word for word in words if isinstance(word, str) and word))
    return "; ".join(said) or str(body.get("category") or "")


def step(name: str, ok: bool | None, detail: str, answer: Answer | NoAnswer | CallResult) -> Step:
    """What one call showed."""
    return Step(name=name, ok=ok, detail=detail, status=answer.status, milliseconds=round(answer.seconds * 1000))


def refused(name: str, judge: Judge, answer: Answer | NoAnswer, *, remedy: str = "") -> Step:
    """A call that did not go as it should, in the words that a delivery would have for it."""
    detail = judge.verdict(answer).detail
    return step(name, False, f"{detail}. {remedy}" if remedy else detail, answer)
