"""What any service's answer says of single contacts, read as the destination's options tell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from app.domain.destinations import HttpOptions
from app.domain.outcomes import EffectState, ErrorCode
from jobs.crm.exchange import Answer
from jobs.crm.port import Contact, Outcome
from jobs.crm.verdict import message

WELL: Final = frozenset(
    {"ok", "success", "succeeded", "created", "updated", "unchanged", "superseded", "accepted", "deleted"}
)
THERE_BEFORE: Final = frozenset({"updated", "unchanged", "superseded"})
"""Words for a record that the call did not make."""
LATER: Final = frozenset({"retry", "pending", "locked", "rate_limited", "unavailable", "try_later"})
LATER_STATUSES: Final = frozenset({408, 423, 425, 429})
GONE_STATUSES: Final = frozenset({404, 410})

_MISSING: Final = object()
_DEEPEST: Final = 3


class Results:
    """Reads the item results of one destination's answers."""

    def __init__(self, options: HttpOptions, words: Callable[[str], str]) -> None:
        self._options = options
        self._words = words

    def outcomes(self, contacts: list[Contact], answer: Answer) -> list[Outcome] | None:
        """An outcome a contact; `None`: the answer is 2xx, but cannot be used."""
        options = self._options
        if options.results == "ignored":
            return self._all_well(contacts, answer)
        if answer.trouble:
            return None
        empty = not answer.body.strip()
        body = None if empty else answer.json()
        if not empty and body is None:
            return None
        results = _MISSING if empty else look(body, options.results_field)
        if results is _MISSING:
            return self._all_well(contacts, answer) if options.results == "optional" else None
        if not isinstance(results, list):
            return None
        found = self._place(contacts, results)
        return None if found is None else [self._outcome(c, found.get(i)) for i, c in enumerate(contacts)]

    def _place(self, contacts: list[Contact], results: list[Any]) -> dict[int, Any] | None:
        """Position → its result. Two results for one contact are none: which of them holds nobody knows."""
        if self._options.results_by == "position":
            return dict(enumerate(results)) if len(results) == len(contacts) else None
        place_of = {contact.contact_id: place for place, contact in enumerate(contacts)}
        found: dict[int, Any] = {}
        for result in results:
            place = place_of.get(key_of(result, self._options.result_id))
            if place is not None:
                found[place] = None if place in found else result
        return found

    def _outcome(self, contact: Contact, result: Any) -> Outcome:
        options = self._options
        if not isinstance(result, dict):
            return self._unknown(contact, "it did not mention this contact")
        told = look(result, options.result_ok)
        error = look(result, options.result_error)
        words = "" if error is _MISSING or error is None else _words(error)
        if told is _MISSING:
            if words:
                return self._failed(contact, words)
            return self._unknown(contact, f"its result has no {options.result_ok!r}")
        state = _state(told, contact)
        if state == EffectState.FAILED and found(result, options.result_retry) is True:
            state = EffectState.RETRY
        if state == EffectState.OK:
            return Outcome(
                contact_id=contact.contact_id,
                state=state,
                remote_id=remote_id_of(result, options),
                created=_created(look(result, options.result_created), told),
            )
        if state == EffectState.UNKNOWN:
            return self._unknown(contact, f"{options.result_ok!r} is {_words(told)}")
        if state == EffectState.FAILED:
            return self._failed(contact, words)
        return Outcome(
            contact_id=contact.contact_id,
            state=EffectState.RETRY,
            code=ErrorCode.DESTINATION_UNAVAILABLE,
            detail=self._words(
                "the destination could not take this contact now" + (f": {words}" if words else "")
            ),
        )

    def _failed(self, contact: Contact, words: str) -> Outcome:
        return Outcome(
            contact_id=contact.contact_id,
            state=EffectState.FAILED,
            code=ErrorCode.DESTINATION_REJECTED,
            detail=self._words("the destination rejected this contact" + (f": {words}" if words else "")),
        )

    def _unknown(self, contact: Contact, words: str) -> Outcome:
        return Outcome(
            contact_id=contact.contact_id,
            state=EffectState.UNKNOWN,
            code=ErrorCode.OUTCOME_UNKNOWN,
            detail=self._words(f"the destination's answer leaves this contact open: {words}"),
        )

    def _all_well(self, contacts: list[Contact], answer: Answer) -> list[Outcome]:
        """201 to a call with one contact says that its record is new (RFC 9110, 15.3.2); of several it says nothing."""
        created = True if answer.status == 201 and len(contacts) == 1 else None
        return [Outcome(contact_id=c.contact_id, state=EffectState.OK, created=created) for c in contacts]


def look(value: Any, path: str) -> Any:
    """What stands under names joined by dots; `_MISSING` if it is not there. An empty path is the value itself."""
    for name in path.split(".") if path else ():
        if not isinstance(value, dict) or name not in value:
            return _MISSING
        value = value[name]
    return value


def found(value: Any, path: str) -> Any:
    """What stands there, or `None`."""
    there = look(value, path)
    return None if there is _MISSING else there


def key_of(record: Any, path: str) -> str:
    """A record's key; a service may write one of digits as a number."""
    key = found(record, path)
    return str(key) if isinstance(key, str | int) and not isinstance(key, bool) else ""


def remote_id_of(record: Any, options: HttpOptions) -> str | None:
    return key_of(record, options.result_remote_id) or None


def _created(flag: Any, told: Any) -> bool | None:
    """Whether the call made the record, by a flag of its own or by what says that it is well; `None`: neither tells."""
    for said in (flag, told):
        if said is flag and isinstance(said, bool):
            return said
        word = str(said).strip().casefold() if isinstance(said, str | int) else ""
        if word in ("created", "201"):
            return True
        if word in THERE_BEFORE:
            return False
    return None


def _state(told: Any, contact: Contact) -> EffectState:
    if isinstance(told, bool):
        return EffectState.OK if told else EffectState.FAILED
    if isinstance(told, int):
        return _state_of_status(told, contact)
    if isinstance(told, str):
        word = told.strip().casefold()
        if word.isascii() and word.isdigit() and len(word) == 3:
            return _state_of_status(int(word), contact)
        if word in WELL:
            return EffectState.OK
        return EffectState.RETRY if word in LATER else EffectState.FAILED
    return EffectState.UNKNOWN


def _state_of_status(status: int, contact: Contact) -> EffectState:
    if 200 <= status < 300 or (contact.deleted and status in GONE_STATUSES):
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
        told = [error.get(name) for name in ("code", "title", "detail")]
        words = [word for word in (*told, message(error)) if isinstance(word, str) and word]
        if words:
            return ": ".join(dict.fromkeys(words))
    return msgspec.json.encode(error).decode()
