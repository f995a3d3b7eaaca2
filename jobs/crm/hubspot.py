"""HubSpot: contacts by batch upsert and batch read, keyed by a unique property of ours.

The account needs one contact property with unique values that holds our business key: `tranche_id`, or what
the destination's options name.

Options (all optional):
    id_property: that property's internal name; default `tranche_id`.
    properties: {attribute: HubSpot property, or null to keep it at home}; see `hubspot_fields.Fields`.
    time_zone: the account's IANA time zone, in which its daily quota starts anew; default UTC.

Source: HubSpot's reference of the contacts batch endpoints. Every field of an answer is treated as optional,
as its page on error handling asks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import aiohttp

from app.domain.outcomes import EffectState, ErrorCode
from jobs.crm.exchange import Answer, NoAnswer, for_humans, identify, send
from jobs.crm.hubspot_fields import Fields
from jobs.crm.hubspot_verdict import Judge, message, objects
from jobs.crm.port import Contact, Headers, Health, Outcome, ReadBack, Reply, Seen, Timeouts

UPSERT: Final = "/crm/v3/objects/contacts/batch/upsert"
READ: Final = "/crm/v3/objects/contacts/batch/read"
ARCHIVE: Final = "/crm/v3/objects/contacts/batch/archive"
BATCH_SIZE: Final = 100

PASSING_CATEGORIES: Final = frozenset(
    {
        "RATE_LIMIT",
        "RATE_LIMITS",
        "INTERNAL_ERROR",
        "SERVICE_UNAVAILABLE",
        "TIMEOUT",
        "LOCKED",
        "OBJECT_LOCKED",
    }
)
"""Categories of one item's error that say nothing against the item."""


class HubSpot:
    """One tenant's connection to one HubSpot account (`jobs.crm.port.Crm`)."""

    batch_size = BATCH_SIZE
    reads_back = True
    repeatable = False

    def __init__(
        self,
        *,
        session: aiohttp.ClientSession,
        base_url: str,
        token: str,
        options: dict[str, Any],
        timeouts: Timeouts,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        if not token or not token.isascii() or not token.isprintable() or " " in token:
            raise ValueError("the token must be printable ASCII without spaces")
        if not base_url.startswith(("http://", "https://")):
            raise ValueError("the base URL must start with https:// or http://")
        self._fields = Fields(options.get("id_property", "tranche_id"), options.get("properties", {}))
        self._judge = Judge(token, self._fields.id_property, options.get("time_zone", "UTC"), now)
        self._session = session
        self._base_url = base_url.rstrip("/")
        self._token = token
        self._timeouts = timeouts

    async def push(self, contacts: list[Contact], headers: Headers) -> Reply:
        """Batch upsert; see `jobs.crm.port.Crm.push`."""
        if len(contacts) > BATCH_SIZE:
            raise ValueError(f"at most {BATCH_SIZE} contacts a call")
        if not contacts:
            return Reply(outcomes=[], health=Health.WELL)
        inputs = [
            {
                "id": contact.contact_id,
                "idProperty": self._fields.id_property,
                "properties": self._fields.properties(contact),
                "objectWriteTraceId": str(index),
            }
            for index, contact in enumerate(contacts)
        ]
        answer = await self._call(UPSERT, {"inputs": inputs}, headers)
        body = self._items(answer)
        if body is not None:
            outcomes = self._outcomes(contacts, body)
            return Reply(
                outcomes=outcomes, health=Health.WELL, seconds=answer.seconds, status=_status(answer)
            )
        return self._judge_all(contacts, answer)

    async def archive(self, contacts: list[Contact], headers: Headers) -> Reply:
        """Batch archive by record id, which passes over records that are not there; see `jobs.crm.port.Crm.archive`."""
        if not contacts:
            return Reply(outcomes=[], health=Health.WELL)
        inputs = [{"id": contact.remote_id} for contact in contacts]
        answer = await self._call(ARCHIVE, {"inputs": inputs}, headers)
        if isinstance(answer, Answer) and answer.status == 204:
            outcomes = [Outcome(contact_id=c.contact_id, state=EffectState.OK) for c in contacts]
            return Reply(outcomes=outcomes, health=Health.WELL, seconds=answer.seconds, status=answer.status)
        return self._judge_all(contacts, answer)

    def _judge_all(self, contacts: list[Contact], answer: Answer | NoAnswer) -> Reply:
        """One verdict for all: the answer does not speak of single contacts."""
        verdict = self._judge.verdict(answer)
        state, code = verdict.state, verdict.code
        whole = verdict.refused and len(contacts) > 1
        if verdict.refused:
            state, code = EffectState.RETRY if whole else EffectState.FAILED, ErrorCode.DESTINATION_REJECTED
        return Reply(
            outcomes=[
                Outcome(contact_id=c.contact_id, state=state, code=code, detail=verdict.detail)
                for c in contacts
            ],
            health=verdict.health,
            pause=verdict.pause,
            seconds=answer.seconds,
            rejected_whole=whole,
            status=_status(answer),
            detail=verdict.detail,
        )

    async def read_back(self, contacts: list[Contact], headers: Headers) -> ReadBack:
        """Batch read by our key; see `jobs.crm.port.Crm.read_back`."""
        if len(contacts) > BATCH_SIZE:
            raise ValueError(f"at most {BATCH_SIZE} contacts a call")
        if not contacts:
            return ReadBack(seen={}, health=Health.WELL)
        wanted = {name for contact in contacts for name in self._fields.sources(contact)}
        payload = {
            "idProperty": self._fields.id_property,
            "properties": sorted(wanted),
            "inputs": [{"id": contact.contact_id} for contact in contacts],
        }
        answer = await self._call(READ, payload, headers)
        body = self._items(answer)
        if body is None:
            verdict = self._judge.verdict(answer)
            return ReadBack(
                seen=None,
                health=verdict.health,
                pause=verdict.pause,
                seconds=answer.seconds,
                status=_status(answer),
                detail=verdict.detail,
            )
        by_key = {contact.contact_id: contact for contact in contacts}
        seen: dict[str, Seen] = {}
        remote_ids: dict[str, str] = {}
        for error in objects(body.get("errors")):
            if error.get("category") == "OBJECT_NOT_FOUND":
                seen |= {key: Seen.ABSENT for key in _context(error, "ids") if key in by_key}
        for record in objects(body["results"]):
            values = _properties(record)
            contact = by_key.get(str(values.get(self._fields.id_property)))
            if contact is not None:
                seen[contact.contact_id] = (
                    Seen.MATCHES if self._fields.match(contact, values) else Seen.DIFFERS
                )
                if record.get("id") is not None:
                    remote_ids[contact.contact_id] = str(record["id"])
        return ReadBack(
            seen=seen,
            remote_ids=remote_ids,
            health=Health.WELL,
            seconds=answer.seconds,
            status=_status(answer),
        )

    async def _call(self, path: str, payload: object, told: Headers) -> Answer | NoAnswer:
        headers = {
            "Authorization": f"Bearer {self._token}",
            **identify(told),
        }
        url = self._base_url + path
        return await send(
            self._session, "POST", url, payload=payload, headers=headers, timeouts=self._timeouts
        )

    def _items(self, answer: Answer | NoAnswer) -> dict[str, Any] | None:
        """The body of a 2xx that speaks of items, else `None`."""
        if isinstance(answer, NoAnswer) or not 200 <= answer.status < 300:
            return None
        body = answer.json()
        return body if isinstance(body, dict) and isinstance(body.get("results"), list) else None

    def _outcomes(self, contacts: list[Contact], body: dict[str, Any]) -> list[Outcome]:
        """Match results and errors to contacts by trace id and key; their order means nothing."""
        written = dict(self._written(contacts, body["results"]))
        refused: dict[int, dict[str, Any]] = {}
        untraced: list[dict[str, Any]] = []
        for error in objects(body.get("errors")):
            places = [
                p
                for trace in _context(error, "objectWriteTraceId")
                if (p := _place(trace, contacts)) is not None
            ]
            refused |= dict.fromkeys(places, error)
            if not places:
                untraced.append(error)
        silent = [p for p in range(len(contacts)) if p not in written and p not in refused]
        if len(silent) == len(untraced) == 1:
            refused[silent[0]] = untraced[0]
        lost = "HubSpot did not mention this contact in its answer"
        if untraced:
            lost = f"{lost}; it said: {message(untraced[0])}"
        return [
            self._outcome(contact, written.get(place), refused.get(place), lost)
            for place, contact in enumerate(contacts)
        ]

    def _written(self, contacts: list[Contact], results: list[Any]) -> Iterator[tuple[int, str]]:
        """(position, remote id) of every result whose key and trace id do not contradict each other."""
        place_of = {contact.contact_id: place for place, contact in enumerate(contacts)}
        for record in objects(results):
            by_key = place_of.get(str(_properties(record).get(self._fields.id_property)))
            by_trace = _place(record.get("objectWriteTraceId"), contacts)
            place = by_trace if by_key is None else by_key
            if place is not None and by_trace in (None, place) and record.get("id") is not None:
                yield place, str(record["id"])

    def _outcome(
        self, contact: Contact, remote_id: str | None, error: dict[str, Any] | None, lost: str
    ) -> Outcome:
        if error is None and remote_id is not None:
            return Outcome(contact_id=contact.contact_id, state=EffectState.OK, remote_id=remote_id)
        if error is None or remote_id is not None:
            state, code, words = EffectState.UNKNOWN, ErrorCode.OUTCOME_UNKNOWN, lost
            if error is not None:
                words = f"HubSpot reported both a result and an error: {message(error)}"
        elif error.get("category") in PASSING_CATEGORIES:
            state, code = EffectState.RETRY, ErrorCode.DESTINATION_UNAVAILABLE
            words = f"HubSpot could not take this contact now: {message(error)}"
        else:
            state, code = EffectState.FAILED, ErrorCode.DESTINATION_REJECTED
            words = f"HubSpot rejected this contact: {message(error)}"
        return Outcome(
            contact_id=contact.contact_id, state=state, code=code, detail=for_humans(words, self._token)
        )


def _status(answer: Answer | NoAnswer) -> int | None:
    return None if isinstance(answer, NoAnswer) else answer.status


def _properties(record: Mapping[str, Any]) -> dict[str, Any]:
    values = record.get("properties")
    return values if isinstance(values, dict) else {}


def _context(error: Mapping[str, Any], name: str) -> Iterable[str]:
    """The strings under `context.<name>`, which HubSpot sends as a list."""
    context = error.get("context")
    value = context.get(name) if isinstance(context, dict) else None
    return [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, str)]


def _place(trace: object, contacts: list[Contact]) -> int | None:
    if isinstance(trace, str) and trace.isascii() and trace.isdigit() and int(trace) < len(contacts):
        return int(trace)
    return None
