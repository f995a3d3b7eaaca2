"""What HubSpot's answer to a write says of each record: results and errors, matched by trace id and key."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from app.vocabulary.states import EffectState, ErrorCode
from jobs.crm.answers import objects
from jobs.crm.exchange import Answer, NoAnswer
from jobs.crm.hubspot.adoption import ADOPT, existing_id
from jobs.crm.hubspot.answers import HubSpotJudge
from jobs.crm.port import Outcome, SentRecord

PASSING_CATEGORIES: Final = frozenset(
    """
    RATE_LIMIT RATE_LIMITS INTERNAL_ERROR SERVICE_UNAVAILABLE TIMEOUT LOCKED OBJECT_LOCKED
    """.split()
)
"""Categories of one item's error that say nothing against the item."""


class Outcomes:
    """Reads the answers of one account. `adopts`: records that it knows by their address are taken over."""

    def __init__(self, judge: HubSpotJudge, id_property: str, *, adopts: bool) -> None:
        self._judge = judge
        self._id_property = id_property
        self._adopts = adopts

    def read(self, records: list[SentRecord], body: dict[str, Any]) -> list[Outcome]:
        """Match results and errors to records by trace id and key; their order means nothing."""
        traced = {str(place): place for place in range(len(records))}
        written = dict(self._written(records, traced, body["results"]))
        refused: dict[int, dict[str, Any]] = {}
        untraced: list[dict[str, Any]] = []
        for error in objects(body.get("errors")):
            places = [traced[trace] for trace in context(error, "objectWriteTraceId") if trace in traced]
            refused |= dict.fromkeys(places, error)
            if not places:
                untraced.append(error)
        silent = [p for p in range(len(records)) if p not in written and p not in refused]
        if len(silent) == len(untraced) == 1:
            refused[silent[0]] = untraced[0]
        lost = "HubSpot did not mention this record in its answer"
        if untraced:
            lost = f"{lost}; it said: {self._judge.said(untraced[0])}"
        return [
            self._outcome(record, written.get(place), refused.get(place), lost) for place, record in enumerate(records)
        ]

    def _written(
        self, records: list[SentRecord], traced: Mapping[str, int], results: list[Any]
    ) -> Iterator[tuple[int, tuple[str, bool | None]]]:
        """(position, (remote id, whether it is new)) of every result whose key and trace id do not contradict each
        other."""
        place_of = {record.record_id: place for place, record in enumerate(records)}
        for result in objects(results):
            by_key = place_of.get(str(properties(result).get(self._id_property)))
            trace = result.get("objectWriteTraceId")
            by_trace = traced.get(trace) if isinstance(trace, str) else None
            place = by_trace if by_key is None else by_key
            if place is not None and by_trace in (None, place) and result.get("id") is not None:
                new = result.get("new")
                yield place, (str(result["id"]), new if isinstance(new, bool) else None)

    def _outcome(
        self, record: SentRecord, written: tuple[str, bool | None] | None, error: dict[str, Any] | None, lost: str
    ) -> Outcome:
        if error is None and written is not None:
            remote_id, created = written
            return Outcome(record.record_id, EffectState.OK, remote_id=remote_id, created=created)
        if error is None or written is not None:
            state, code, words = EffectState.UNKNOWN, ErrorCode.OUTCOME_UNKNOWN, lost
            if error is not None:
                words = f"HubSpot reported both a result and an error: {self._judge.said(error)}"
        elif error.get("category") in PASSING_CATEGORIES or self._judge.remedy(error, [record]) is not None:
            state, code = EffectState.RETRY, ErrorCode.DESTINATION_UNAVAILABLE
            words = f"HubSpot could not take this record now: {self._judge.said(error)}"
        else:
            state, code = EffectState.FAILED, ErrorCode.DESTINATION_REJECTED
            words = f"HubSpot rejected this record: {self._judge.said(error)}"
            if not self._adopts and existing_id(error) is not None:
                words = f"{words}. To take it over: {ADOPT}"
        return Outcome(record.record_id, state, code, self._judge.words(words))


def items(answer: Answer | NoAnswer) -> dict[str, Any] | None:
    """The body of a 2xx that speaks of items, else `None`."""
    body = answer.json() if answer.well else None
    return body if isinstance(body, dict) and isinstance(body.get("results"), list) else None


def conflicts_of(records: list[SentRecord], body: dict[str, Any]) -> dict[str, str]:
    """Records refused because HubSpot has their address → the record that has it, as far as it is said."""
    found: dict[str, str] = {}
    for error in objects(body.get("errors")):
        there = existing_id(error)
        for trace in context(error, "objectWriteTraceId") if there is not None else ():
            if trace.isdecimal() and int(trace) < len(records):
                found[records[int(trace)].record_id] = there or ""
    return found


def not_found(body: Mapping[str, Any]) -> set[str]:
    """The record ids that an answer says are not there."""
    errors = [error for error in objects(body.get("errors")) if error.get("category") == "OBJECT_NOT_FOUND"]
    return {there for error in errors for there in context(error, "ids")}


def next_page(body: Mapping[str, Any]) -> str | None:
    """Where a list or a search goes on; `None`: this was all."""
    paging = body.get("paging")
    following = paging.get("next") if isinstance(paging, dict) else None
    after = following.get("after") if isinstance(following, dict) else None
    return None if after is None else str(after)


def properties(result: Mapping[str, Any]) -> dict[str, Any]:
    values = result.get("properties")
    return values if isinstance(values, dict) else {}


def context(error: Mapping[str, Any], name: str) -> Iterable[str]:
    """The strings under `context.<name>`, which HubSpot sends as a list."""
    context = error.get("context")
    value = context.get(name) if isinstance(context, dict) else None
    return [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, str)]
