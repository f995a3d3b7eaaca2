"""What Salesforce's errors mean: those of a whole request, those of one record, and the daily quota.

Sources: REST API Developer Guide, Status Codes and Error Responses and Limit Info Header; SOAP API Developer
Guide, Core Data Types (StatusCode). The allowance of API calls is one of the last 24 hours, so there is no
moment at which it starts anew: what is spent comes back little by little.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from app.vocabulary.states import EffectState, ErrorCode
from jobs.crm.answers import LIMIT_SECONDS, Judge, Verdict, Wait, objects, rename_or_exclude
from jobs.crm.exchange import Answer, NoAnswer
from jobs.crm.matching import absent
from jobs.crm.port import Authorizer, Health, Outcome, Pause, ReadBack, Reply, SentRecord
from jobs.crm.salesforce.fields import Fields

QUOTA_SECONDS: Final = 900.0

PASSING: Final = frozenset(
    """
    UNABLE_TO_LOCK_ROW SERVER_UNAVAILABLE REQUEST_LIMIT_EXCEEDED REQUEST_RUNNING_TOO_LONG QUERY_TIMEOUT
    STORAGE_LIMIT_EXCEEDED UNKNOWN_EXCEPTION ALL_OR_NONE_OPERATION_ROLLED_BACK PROCESSING_HALTED
    """.split()
)
"""Status codes of one record's error that say nothing against the record."""

GONE: Final = frozenset({"ENTITY_IS_DELETED", "NOT_FOUND", "INVALID_CROSS_REFERENCE_KEY"})
"""What a deletion says of a record that is in the recycle bin, or has left it."""

SETTINGS: Final = frozenset(
    """
    API_CURRENTLY_DISABLED API_DISABLED_FOR_ORG INSUFFICIENT_ACCESS INVALID_SESSION_ID INVALID_TYPE
    NOT_FOUND UNSUPPORTED_API_VERSION
    """.split()
)
"""Codes of a refused request that speak of the connection, whatever their HTTP status."""

_NO_ACCESS: Final = frozenset({"INVALID_FIELD_FOR_INSERT_UPDATE"})
_NO_FIELD: Final = _NO_ACCESS | {"INVALID_FIELD"}
_TRIGGERS: Final = frozenset({"CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY", "CANNOT_EXECUTE_FLOW_TRIGGER"})
_DOUBLED: Final = (
    ". A duplicate rule of the organisation found records like it: merge them, or have it saved if the rule only warns "
    "(tranche destinations change NAME --option duplicate_rules=bypass), then replay this dead letter"
)
NO_COLUMN: Final = re.compile(r"No such column '([^']+)'")
_FIELDS: Final = re.compile(r"fields: (\w+)")
_USAGE: Final = re.compile(r"(?<![\w-])api-usage=(\d{1,15})/(\d{1,15})")


class SalesforceJudge(Judge):
    """Judges the answers of one organisation."""

    vendor = "Salesforce"

    def __init__(self, authorizer: Authorizer, fields: Fields, now: Callable[[], datetime]) -> None:
        super().__init__(authorizer, now)
        self._fields = fields
        self._key = fields.key

    def said(self, body: Any) -> str:
        """Errors of a request are a list of `{"errorCode","message","fields"}`."""
        return "; ".join(dict.fromkeys(filter(None, map(_said, objects(body)))))

    def is_setting(self, answer: Answer, body: Any) -> bool:
        """The request can never work here."""
        return bool(codes(body) & SETTINGS)

    def remedy(self, body: Any, records: Sequence[SentRecord]) -> str | None:
        """A column or the external id field is missing, or this user may not write it."""
        lacking = next(self._lacking(body), None)
        if lacking is None:
            return None
        name, code = lacking
        if name.casefold() == self._key.casefold():
            return (
                f"Give {self._fields.object} the field {self._key} (text of 255 characters, External ID, Unique, "
                "case-sensitive) and the user of the token access to it, or name the one that holds your key "
                "(tranche destinations change NAME --option external_id_field=THEIRS)"
            )
        ours = self._fields.source_of(name, records) or name
        do = (
            "Let the user of the token edit it, give"
            if code in _NO_ACCESS
            else f"Create {name} on {self._fields.object}, give"
        )
        return rename_or_exclude(do, ours)

    def _lacking(self, errors: Any) -> Iterator[tuple[str, str]]:
        """(field, code) of each column that is not there, or that may not be written."""
        for error in objects(errors):
            code, words = _code(error), str(error.get("message"))
            if code == "NOT_FOUND" and "external id field" in words.casefold():
                yield self._key, code
            elif code in _NO_FIELD:
                fields = error.get("fields")
                named = [f for f in fields if isinstance(f, str)] if isinstance(fields, list) else []
                found = NO_COLUMN.findall(words) or named or _FIELDS.findall(words)
                yield from ((name, code) for name in found)

    def wait(self, answer: Answer, body: Any) -> Wait | None:
        if "REQUEST_LIMIT_EXCEEDED" in codes(body):
            asked = self.asked(answer)
            seconds = self._limit_seconds(answer, body) if asked is None else asked
            return Wait(seconds=seconds, code=ErrorCode.DESTINATION_RATE_LIMIT)
        if "SERVER_UNAVAILABLE" in codes(body):
            return Wait(seconds=self.asked(answer), health=Health.CRM_FAULT)
        return super().wait(answer, body)

    def _limit_seconds(self, answer: Answer, body: Any) -> float:
        """Too many calls at a time pass quickly; the day's allowance does not."""
        usage = usage_of(answer)
        spent = usage is not None and usage[0] >= usage[1]
        return QUOTA_SECONDS if spent or "TotalRequests" in self.said(body) else LIMIT_SECONDS

    def verdict(self, answer: Answer | NoAnswer, records: Sequence[SentRecord] = ()) -> Verdict:
        """300: several records have this external id, and which of them is meant nobody knows."""
        if isinstance(answer, Answer) and answer.status == 300:
            return Verdict(
                health=Health.WELL,
                detail=self.words(f"Salesforce answered 300: several records have one {self._key}; merge them"),
                refused=True,
            )
        return super().verdict(answer, records)

    def written(self, record: SentRecord, result: Any) -> Outcome:
        created = result.get("created") if isinstance(result, dict) else None
        return self._outcome(record, result, created=created if isinstance(created, bool) else None)

    def created(self, record: SentRecord, result: Any) -> Outcome:
        """The outcome of one record of a creation, whose answer has no flag for it: what went well is new."""
        return self._outcome(record, result, created=True)

    def updated(self, record: SentRecord, result: Any) -> Outcome:
        """The outcome of one record that was written to by its Id."""
        if isinstance(result, dict) and codes(result.get("errors")) & GONE:
            return absent(record)
        return self._outcome(record, result, created=False)

    def deleted(self, record: SentRecord, result: Any) -> Outcome:
        """The outcome of one record of a deletion; one that is not there (any more) is well."""
        if isinstance(result, dict) and codes(result.get("errors")) & GONE:
            return Outcome(record.record_id, EffectState.OK, remote_id=record.remote_id)
        return self._outcome(record, result, "would not delete this record")

    def _outcome(
        self, record: SentRecord, result: Any, refusal: str = "rejected this record", *, created: bool | None = None
    ) -> Outcome:
        found = result if isinstance(result, dict) else {}
        if found.get("success") is True:
            remote_id = str(found["id"]) if found.get("id") else record.remote_id
            return Outcome(record.record_id, EffectState.OK, remote_id=remote_id, created=created)
        said = self.said(found.get("errors"))
        if found.get("success") is not False:
            state, code = EffectState.UNKNOWN, ErrorCode.OUTCOME_UNKNOWN
            words = "Salesforce did not say what became of this record"
        elif self._passes(found.get("errors")) or any(self._lacking(found.get("errors"))):
            state, code = EffectState.RETRY, ErrorCode.DESTINATION_UNAVAILABLE
            words = "Salesforce could not take this record now"
        else:
            state, code = EffectState.FAILED, ErrorCode.DESTINATION_REJECTED
            words = f"Salesforce {refusal}"
        said += _DOUBLED if codes(found.get("errors")) >= {"DUPLICATES_DETECTED"} else ""
        detail = self.words(f"{words}: {said}" if said else words)
        return Outcome(record.record_id, state, code, detail)

    def _passes(self, errors: Any) -> bool:
        """Somebody made a record with this key at the same time: an upsert that found none, and a creation, cannot
        make one, and the next upsert finds it."""
        words = f"{self._key} duplicates value on record".casefold()
        race = any(
            _code(error) == "DUPLICATE_VALUE" and words in str(error.get("message")).casefold()
            for error in objects(errors)
        )
        return race or any(_code(error) in PASSING or _within_trigger(error) for error in objects(errors))


def lacks(result: Any, field: str) -> bool:
    """Whether a record of an upsert was refused for the want of this field alone: there is none yet, and it cannot be
    made without."""
    errors = result.get("errors") if isinstance(result, dict) else None
    return codes(errors) == {"REQUIRED_FIELD_MISSING"} and all(
        isinstance(error.get("fields"), list)
        and [str(name).casefold() for name in error["fields"]] == [field.casefold()]
        for error in objects(errors)
    )


class Quota:
    """What is left of the organisation's calls; beyond `share` of them none is made for a while."""

    def __init__(self, share: float, monotonic: Callable[[], float]) -> None:
        self._share = share
        self._monotonic = monotonic
        self._until = 0.0
        self._detail = ""

    def note(self, answer: Answer | NoAnswer) -> None:
        usage = usage_of(answer) if isinstance(answer, Answer) else None
        if usage is not None and usage[0] >= usage[1] * self._share:
            self._until = self._monotonic() + QUOTA_SECONDS
            self._detail = f"{usage[0]} of the organisation's {usage[1]} API calls of the last 24 hours are used" + (
                f", and quota_share lets go to {self._share:g} of them" if self._share < 1 else ""
            )

    def pause(self) -> Pause | None:
        left = self._until - self._monotonic()
        return Pause(left, self._detail) if left > 0 else None

    def closed(self, records: list[SentRecord], pause: Pause) -> Reply:
        """The answer to a call that was not made."""
        waits = (EffectState.RETRY, ErrorCode.DESTINATION_RATE_LIMIT, pause.detail)
        outcomes = [Outcome(c.record_id, *waits) for c in records]
        return Reply(outcomes=outcomes, health=Health.WELL, pause=pause, detail=pause.detail)

    def unread(self, pause: Pause) -> ReadBack:
        return ReadBack(seen=None, health=Health.WELL, pause=pause, detail=pause.detail)


def usage_of(answer: Answer) -> tuple[int, int] | None:
    """Calls used and allowed, as `Sforce-Limit-Info` reports them."""
    found = _USAGE.search(answer.headers.get("Sforce-Limit-Info", ""))
    return None if found is None or not int(found[2]) else (int(found[1]), int(found[2]))


def rows_of(answer: Answer | NoAnswer, count: int) -> tuple[list[dict[str, Any]], bool, Answer | NoAnswer | None]:
    """The rows of all `count` queries of a composite call, and whether they are all; or the answer, or that to one of
    them, if it is no good."""
    body = answer.json() if answer.status == 200 else None
    results = body.get("compositeResponse") if isinstance(body, dict) else None
    if not isinstance(answer, Answer) or not isinstance(results, list) or len(results) != count:
        return [], False, answer
    rows: list[dict[str, Any]] = []
    complete = True
    for one in objects(results):
        result, status = one.get("body"), one.get("httpStatusCode")
        if status != 200 or not isinstance(result, dict) or not isinstance(result.get("records"), list):
            status = status if isinstance(status, int) else 500
            return [], False, msgspec.structs.replace(answer, status=status, body=msgspec.json.encode(result))
        rows += objects(result["records"])
        complete = complete and result.get("done") is True
    return rows, complete, None


def codes(errors: Any) -> frozenset[str]:
    return frozenset(map(_code, objects(errors)))


def _code(error: Mapping[str, Any]) -> str:
    return str(error.get("errorCode") or error.get("statusCode") or "")


def _within_trigger(error: Mapping[str, Any]) -> bool:
    """A trigger or flow of the organisation met something that passes; its words are within those of the trigger."""
    if _code(error) not in _TRIGGERS:
        return False
    words = str(error.get("message"))
    return any(re.search(rf"\b{code}\b", words) for code in PASSING)


def _said(error: Mapping[str, Any]) -> str:
    words = [_code(error), error.get("message")]
    said = ": ".join(word for word in words if isinstance(word, str) and word)
    fields = error.get("fields")
    named = [f for f in fields if isinstance(f, str) and f not in said] if isinstance(fields, list) else []
    return f"{said} ({', '.join(named)})" if named else said
