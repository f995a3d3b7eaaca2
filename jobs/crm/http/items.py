"""What any service's answer says of single records, read as the destination's options say."""

import re
from collections.abc import Callable
from typing import Any, Final

import msgspec

from app.destinations.expressions import Finder, TooLong
from app.destinations.http_options import HttpOptions
from app.vocabulary.states import EffectState, ErrorCode
from jobs.crm.answers import message
from jobs.crm.exchange import Answer
from jobs.crm.http.refusals import MISSING, QUEUED, Reader, Refusals, found, look
from jobs.crm.port import Health, Outcome, Reply, SentRecord

WELL: Final = frozenset(
    {"ok", "success", "succeeded", "created", "updated", "unchanged", "superseded", "accepted", "deleted"}
)
THERE_BEFORE: Final = frozenset({"updated", "unchanged", "superseded"})
"""Words for a record that the call did not make."""
LATER: Final = frozenset({"retry", "pending", "locked", "rate_limited", "unavailable", "try_later"})
LATER_STATUSES: Final = frozenset({408, 423, 425, 429})
GONE_STATUSES: Final = frozenset({404, 410})
GONE: Final = "it does not have this record any more; a retry creates it anew"
FORGET: Final = ""
"""As a remote id: there is no record of that id any more."""

_ERROR_NAME: Final = re.compile(
    r"err|fail|fault|message|detail|description|reason|problem|title|status|code|info|note|text", re.IGNORECASE
)
_MOST_ID: Final = 255
_SHOWN: Final = 2_000
"""Bytes of a body that are looked at to show its beginning."""
_LAST_WORD: Final = re.compile(r"""[^\s"':,\[\]{}]*\Z""")
_DEEPEST: Final = 3
_ACCEPTED: Final = 202
"""Accepted for processing that is not completed and may never be (RFC 9110, 15.3.3)."""


class Results:
    """Reads the item results of one destination's answers."""

    def __init__(self, options: HttpOptions, words: Callable[[str], str], said: Callable[[Any], str]) -> None:
        self._options = options
        self._words = words
        self._said = said
        self._reads_back = options.read is not None or options.read_path is not None
        self._halves = options.task is not None and (options.repeatable or options.idempotent)
        """A task that only counts failures is repeated in halves."""
        self._finder = Finder()
        # A result that does not name its record could be any list, and its texts are shown only where they are errors.
        last = options.result_error.rpartition(".")[2]
        self._may_show = options.results_by == "id" or _ERROR_NAME.search(last) is not None

    def reply(self, records: list[SentRecord], answer: Answer, payload: Any) -> Reply | None:
        """An outcome a record, of a call with this payload; `None`: the answer is 2xx, but cannot be used."""
        if self._options.results == "ignored":
            return self._believe(records, answer)
        if answer.trouble:
            return None
        empty = not answer.body.strip()
        body = None if empty else answer.json()
        if not empty and body is None:
            return None
        self._finder = Finder()  # the expressions of one answer share their steps
        try:
            return self._read(records, answer, body, payload)
        except TooLong:
            return None

    def _read(self, records: list[SentRecord], answer: Answer, body: Any, payload: Any) -> Reply | None:
        options = self._options
        if options.results == "status":
            return self._by_status(records, answer, body)
        results = None if body is None else found(body, options.results_field, self._finder)
        if results is None and look(body, options.results_field, self._finder) is not MISSING:
            return None  # null, where results belong
        echoed = options.results == "echoed"
        gone = all(record.deleted for record in records)  # that is not there any more need not be echoed
        by_position = options.results_by == "position"
        reader = Reader(records, options.result_id, by_position=by_position, finder=self._finder)
        if options.results == "failures":
            # By its ordinary name a list may be one of successes; what fails is found in it all the same.
            listed = results if options.results_field != "results" else None
            refusals = reader.read(body, failures=listed, payload=payload)
            return self._without_results(records, answer, refusals, rest_is_well=True)
        if results is None and (options.results == "optional" or (echoed and gone)):
            refusals = reader.read(body, payload=payload)
            return self._without_results(records, answer, refusals, rest_is_well=False)
        if results is None and echoed:
            results = []
        if not isinstance(results, list):
            return None
        placed = self._place_echoes(records, results, reader) if echoed else self._place(records, results)
        if placed is None:
            return None
        outcomes = [
            self._echo(record, placed.get(place, MISSING), gone=gone)
            if echoed
            else self._outcome(record, placed.get(place))
            for place, record in enumerate(records)
        ]
        return self._reply(answer, self._weigh(records, outcomes, reader.read(body, results=results), answer))

    def _by_status(self, records: list[SentRecord], answer: Answer, body: Any) -> Reply:
        """The body is the one result if it says anything, else the status says that all is well."""
        [record] = records
        if answer.status == _ACCEPTED:
            open_one = self._open("202 means that it is queued and not done", answer)
            return self._reply(answer, [msgspec.structs.replace(open_one, record_id=record.record_id)])
        if look(body, self._options.result_ok, self._finder) is not MISSING:
            return self._reply(answer, [self._outcome(record, body)])
        created = _created(look(body, self._options.result_created, self._finder), answer.status)
        remote_id = self._remote_id(body)
        reply = self._reply(answer, [self._well(record, created, remote_id)])
        return msgspec.structs.replace(reply, vouched=remote_id is not None)

    def failed_task(self, records: list[SentRecord], answer: Answer) -> Reply:
        """The work of a call failed as a whole; a part of it may be done."""
        said = self._said(answer.json())
        words = "the task failed" + (f": {said}" if said else "")
        if len(records) == 1:
            return self._reply(answer, [self._failed(records[0], words)])
        if self._halves:
            return self._whole(records, answer, f"the destination took the call, but {words}")
        open_one = self._open(words, answer)
        return self._reply(answer, [msgspec.structs.replace(open_one, record_id=r.record_id) for r in records])

    def _whole(self, records: list[SentRecord], answer: Answer, words: str) -> Reply:
        """Halves show which records are guilty; what was done already is done again, which is harmless."""
        refusal = (EffectState.RETRY, ErrorCode.DESTINATION_REJECTED, self._words(words))
        outcomes = [Outcome(record.record_id, *refusal) for record in records]
        return msgspec.structs.replace(self._reply(answer, outcomes), rejected_whole=True)

    def _remote_id(self, result: Any) -> str | None:
        return remote_id_of(result, self._options.result_remote_id, self._finder)

    def _place(self, records: list[SentRecord], results: list[Any]) -> dict[int, Any] | None:
        """Position → its result. Two results for one record are none: which of them holds nobody knows."""
        if self._options.results_by == "position":
            return dict(enumerate(results)) if len(results) == len(records) else None
        place_of = {record.record_id: place for place, record in enumerate(records)}
        found: dict[int, Any] = {}
        for result in results:
            place = place_of.get(key_of(result, self._options.result_id, self._finder))
            if place is not None:
                found[place] = None if place in found else result
        return found

    def _place_echoes(self, records: list[SentRecord], results: list[Any], reader: Reader) -> dict[int, Any] | None:
        """Position → the record that the service shows of it, found by our key or its e-mail address."""
        if self._options.results_by == "position":
            return self._place(records, results)
        placed = ((reader.place(result), result) for result in results)
        return {place: result for place, result in placed if place is not None}

    def _echo(self, record: SentRecord, result: Any, *, gone: bool) -> Outcome:
        if result is MISSING or result is None:
            return self._well(record) if gone else self._unknown(record, "it did not show this record")
        if not isinstance(result, dict):
            return self._well(record)
        options = self._options
        error = found(result, options.result_error, self._finder)
        if look(result, options.result_ok, self._finder) is not MISSING or error not in (None, False, "", [], {}):
            return self._outcome(record, result)
        created = _created(look(result, options.result_created, self._finder), None)
        return self._well(record, created, self._remote_id(result))

    def _without_results(
        self, records: list[SentRecord], answer: Answer, refusals: Refusals, *, rest_is_well: bool
    ) -> Reply:
        """What a body says that has no result for each record; `rest_is_well`: whom it does not blame is done."""
        queued = refusals.queued or ("202 means that it is queued and not done" if answer.status == _ACCEPTED else "")
        if refusals.account:
            detail = self._words(f"the destination answered {answer.status}, but {refusals.sign}")
            held = [self._later(record, detail) for record in records]
            return self._reply(answer, held, Health.CONNECTION_FAULT, detail)
        if not refusals.any and not queued:
            return self._believe(records, answer)
        alone = len(records) == 1 and not queued and not refusals.stored
        alone = alone and bool(refusals.nameless or refusals.counted)
        if alone:
            refusals.named.setdefault(0, self._said(answer.json()) or refusals.sign)
        unexplained = refusals.nameless if rest_is_well else refusals.nameless or refusals.named
        doubtful = bool(queued or unexplained or refusals.counted > len(refusals.named))
        if rest_is_well and refusals.named and _only_flags(refusals):
            doubtful = bool(queued) or refusals.counted > len(refusals.named)
        why = queued or refusals.sign
        open_one = self._open(why, answer)
        outcomes = [
            self._failed(record, refusals.named[place])
            if place in refusals.named
            else msgspec.structs.replace(open_one, record_id=record.record_id)
            if doubtful
            else self._well(record)
            for place, record in enumerate(records)
        ]
        nobody = not refusals.named and doubtful
        if self._halves and nobody and refusals.counted and len(records) > 1 and not queued:
            return self._whole(records, answer, f"the destination took the call, but {refusals.sign}")
        chosen = self._options
        settles = self._reads_back or chosen.repeatable or chosen.idempotent
        # A service that never says what was done would leave one call after the other to an operator.
        fault = nobody and (not queued or not settles)
        return self._reply(answer, outcomes, Health.CONNECTION_FAULT if fault else Health.WELL)

    def _weigh(
        self, records: list[SentRecord], outcomes: list[Outcome], refusals: Refusals, answer: Answer
    ) -> list[Outcome]:
        """Results beside which the body says something else are open: only one of the two can be true."""
        bad = sum(outcome.state != EffectState.OK for outcome in outcomes)
        doubtful = bool(
            refusals.queued
            or refusals.counted > max(bad, len(refusals.named))
            or ((refusals.nameless or refusals.account) and not bad and not refusals.named)
        )
        if not doubtful and not refusals.named:
            return outcomes
        weighed = list(outcomes)
        for place, outcome in enumerate(outcomes):
            if outcome.state != EffectState.OK:
                continue
            if place in refusals.named and self._options.results == "echoed":
                weighed[place] = self._failed(records[place], refusals.named[place])
            elif place in refusals.named or doubtful:
                why = refusals.named.get(place) or refusals.sign
                words = f"its result and the rest of the answer contradict each other: {why}"
                weighed[place] = msgspec.structs.replace(self._open(words, answer), record_id=outcome.record_id)
        return weighed

    def _believe(self, records: list[SentRecord], answer: Answer) -> Reply:
        """All is well because nothing says otherwise. 201 to a call with one record says that it is new there
        (RFC 9110, 15.3.2); of several it says nothing."""
        created = True if answer.status == 201 and len(records) == 1 else None
        outcomes = [self._well(record, created) for record in records]
        return msgspec.structs.replace(self._reply(answer, outcomes), vouched=False)

    def _reply(self, answer: Answer, outcomes: list[Outcome], health: Health = Health.WELL, detail: str = "") -> Reply:
        return Reply(outcomes=outcomes, health=health, seconds=answer.seconds, status=answer.status, detail=detail)

    def _outcome(self, record: SentRecord, result: Any) -> Outcome:
        options = self._options
        if not isinstance(result, dict):
            return self._unknown(record, "it did not mention this record")
        verdict = look(result, options.result_ok, self._finder)
        error = look(result, options.result_error, self._finder)
        words = "" if error is MISSING or error is None or not self._may_show else _words(error)
        if verdict is MISSING:
            if words:
                return self._failed(record, words)
            return self._unknown(record, f"its result has no {options.result_ok!r}")
        state = _state(verdict, record)
        if state == EffectState.FAILED and options.update is not None and record.remote_id and _is_gone(verdict):
            return msgspec.structs.replace(self._failed(record, words or GONE), remote_id=FORGET)
        if state == EffectState.FAILED and found(result, options.result_retry, self._finder) is True:
            state = EffectState.RETRY
        if state == EffectState.OK:
            created = _created(look(result, options.result_created, self._finder), verdict)
            return Outcome(record.record_id, state, remote_id=self._remote_id(result), created=created)
        if state == EffectState.UNKNOWN:
            said = _words(verdict) or "neither yes nor no"
            return self._unknown(record, f"{options.result_ok!r} is {said}")
        if state == EffectState.FAILED:
            return self._failed(record, words)
        now = self._words("the destination could not take this record now" + (f": {words}" if words else ""))
        return self._later(record, now)

    def _failed(self, record: SentRecord, words: str) -> Outcome:
        detail = self._words("the destination rejected this record" + (f": {words}" if words else ""))
        return Outcome(record.record_id, EffectState.FAILED, ErrorCode.DESTINATION_REJECTED, detail)

    def _unknown(self, record: SentRecord, words: str) -> Outcome:
        detail = self._words(f"the destination's answer leaves this record open: {words}")
        return Outcome(record.record_id, EffectState.UNKNOWN, ErrorCode.OUTCOME_UNKNOWN, detail)

    def _open(self, why: str, answer: Answer) -> Outcome:
        """With the body, so that an operator can decide what to do."""
        shown = _beginning(answer.body)
        body = f"; its body: {shown}" if shown.strip() else ""
        detail = self._words(f"the destination answered {answer.status}, but {why}{body}")
        return Outcome("", EffectState.UNKNOWN, ErrorCode.OUTCOME_UNKNOWN, detail)

    def _later(self, record: SentRecord, detail: str) -> Outcome:
        return Outcome(record.record_id, EffectState.RETRY, ErrorCode.DESTINATION_UNAVAILABLE, detail)

    def _well(self, record: SentRecord, created: bool | None = None, remote_id: str | None = None) -> Outcome:
        return Outcome(record.record_id, EffectState.OK, remote_id=remote_id, created=created)


def _beginning(body: bytes) -> str:
    """Enough of a body to be shown, which ends between words: half a token would not be known for one."""
    shown = body[:_SHOWN].decode(errors="replace")
    return shown if len(body) <= _SHOWN else _LAST_WORD.sub("", shown)


def _only_flags(refusals: Refusals) -> bool:
    """Whether all that names nobody is a word for the whole (`success: false`), which the named ones explain."""
    return all(sign.startswith("it says ") for sign in refusals.nameless)


def key_of(result: Any, path: str, finder: Finder | None = None) -> str:
    """A record's key; a service may write one of digits as a number."""
    key = found(result, path, finder)
    return str(key) if isinstance(key, str | int) and not isinstance(key, bool) else ""


def remote_id_of(result: Any, path: str, finder: Finder) -> str | None:
    found_id = key_of(result, path, finder)
    return found_id if 0 < len(found_id) <= _MOST_ID else None


def _created(flag: Any, verdict: Any) -> bool | None:
    """Whether the call made the record, by a flag of its own or by what says that it is well; `None`: neither says."""
    for said in (flag, verdict):
        if said is flag and isinstance(said, bool):
            return said
        word = str(said).strip().casefold() if isinstance(said, str | int) else ""
        if word in ("created", "201"):
            return True
        if word in THERE_BEFORE:
            return False
    return None


def _is_gone(verdict: Any) -> bool:
    return str(verdict).strip() in {str(status) for status in GONE_STATUSES}


def _state(verdict: Any, record: SentRecord) -> EffectState:
    if isinstance(verdict, bool):
        return EffectState.OK if verdict else EffectState.FAILED
    if isinstance(verdict, int):
        return _state_of_status(verdict, record)
    if isinstance(verdict, str):
        word = verdict.strip().casefold()
        if word.isascii() and word.isdigit() and len(word) == 3:
            return _state_of_status(int(word), record)
        if word in WELL:
            return EffectState.OK
        if word in QUEUED:
            return EffectState.UNKNOWN
        return EffectState.RETRY if word in LATER else EffectState.FAILED
    return EffectState.UNKNOWN


def _state_of_status(status: int, record: SentRecord) -> EffectState:
    if status == _ACCEPTED:
        return EffectState.UNKNOWN
    if 200 <= status < 300 or (record.deleted and status in GONE_STATUSES):
        return EffectState.OK
    if status in LATER_STATUSES or status == 503:
        return EffectState.RETRY
    return EffectState.FAILED if 400 <= status < 500 else EffectState.UNKNOWN


def _words(error: Any, depth: int = 0) -> str:
    """An error in words, be it a string, an object with a message, or a list of either."""
    if isinstance(error, str):
        return error
    if isinstance(error, list) and depth < _DEEPEST:
        return "; ".join(filter(None, (_words(one, depth + 1) for one in error[:5])))
    if isinstance(error, dict):
        parts = [error.get(name) for name in ("code", "title", "detail")]
        words = [word for word in (*parts, message(error)) if isinstance(word, str) and word]
        if words:
            return ": ".join(dict.fromkeys(words))
    # Fields with what is wrong about each are shown as they are; what is deeper could be anything a service has to say.
    return msgspec.json.encode(error).decode() if not _is_deep(error) else ""


def _is_deep(error: Any) -> bool:
    values = list(error.values() if isinstance(error, dict) else [error])
    nested = [inner for value in values if isinstance(value, list) for inner in value]
    return any(isinstance(x, dict) for x in values) or any(isinstance(x, dict | list) for x in nested)
