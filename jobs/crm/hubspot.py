"""HubSpot: contacts by batch upsert and batch read, keyed by a unique property of ours.

The account needs one contact property with unique values that holds our business key: `tranche_id`, or what
the destination's options name.

The options are `app.domain.destinations.HubSpotOptions`.

Source: HubSpot's reference of the contacts batch endpoints. Every field of an answer is treated as optional,
as its page on error handling asks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import aiohttp

from app.domain import destinations
from app.domain.checks import Step
from app.domain.outcomes import EffectState, ErrorCode
from jobs.crm import hubspot_check
from jobs.crm.connection import Connection
from jobs.crm.exchange import Answer, NoAnswer
from jobs.crm.hubspot_fields import Fields
from jobs.crm.hubspot_verdict import HubSpotJudge
from jobs.crm.port import Contact, CrmFactory, Headers, Health, Outcome, ReadBack, Reply, Seen, Timeouts
from jobs.crm.verdict import message, nameless, objects

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

    reads_back = True
    repeatable = False
    archives = True

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
        chosen = destinations.read(options, destinations.HubSpotOptions)
        self.batch_size = chosen.batch_size or BATCH_SIZE
        self._fields = Fields(chosen)
        self._judge = HubSpotJudge(token, chosen.id_property, chosen.time_zone, now)
        self._connection = Connection(session=session, base_url=base_url, token=token, timeouts=timeouts)

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
            return Reply(outcomes=outcomes, health=Health.WELL, seconds=answer.seconds, status=answer.status)
        return self._judge.reply(contacts, answer)

    async def check(self, headers: Headers) -> list[Step]:
        """See `jobs.crm.hubspot_check`."""

        async def call(method: str, path: str, payload: object) -> Answer | NoAnswer:
            return await self._connection.call(method, path, payload, headers)

        return await hubspot_check.check(call, self._judge, self._fields.id_property, READ)

    async def archive(self, contacts: list[Contact], headers: Headers) -> Reply:
        """Batch archive by record id, which passes over records that are not there; see `jobs.crm.port.Crm.archive`."""
        if not contacts:
            return Reply(outcomes=[], health=Health.WELL)
        inputs = [{"id": contact.remote_id} for contact in contacts if contact.remote_id is not None]
        if not inputs:
            return Reply(outcomes=[nameless(c) for c in contacts], health=Health.WELL)
        answer = await self._call(ARCHIVE, {"inputs": inputs}, headers)
        if isinstance(answer, Answer) and answer.status == 204:
            outcomes = [
                nameless(c)
                if c.remote_id is None
                else Outcome(contact_id=c.contact_id, state=EffectState.OK, remote_id=c.remote_id)
                for c in contacts
            ]
            return Reply(outcomes=outcomes, health=Health.WELL, seconds=answer.seconds, status=answer.status)
        return self._judge.reply(contacts, answer)

    async def read_back(self, contacts: list[Contact], headers: Headers) -> ReadBack:
        """Batch read by our key; see `jobs.crm.port.Crm.read_back`."""
        if len(contacts) > BATCH_SIZE:
            raise ValueError(f"at most {BATCH_SIZE} contacts a call")
        if not contacts:
            return ReadBack(seen={}, health=Health.WELL)
        payload = {
            "idProperty": self._fields.id_property,
            "properties": self._fields.names(contacts),
            "inputs": [{"id": contact.contact_id} for contact in contacts],
        }
        answer = await self._call(READ, payload, headers)
        body = self._items(answer)
        if body is None:
            return self._judge.unread(answer)
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
                matches = not contact.deleted and self._fields.match(contact, values)
                seen[contact.contact_id] = Seen.MATCHES if matches else Seen.DIFFERS
                if record.get("id") is not None:
                    remote_ids[contact.contact_id] = str(record["id"])
        return ReadBack(
            seen=seen,
            remote_ids=remote_ids,
            health=Health.WELL,
            seconds=answer.seconds,
            status=answer.status,
        )

    async def _call(self, path: str, payload: object, told: Headers) -> Answer | NoAnswer:
        return await self._connection.call("POST", path, payload, told)

    def _items(self, answer: Answer | NoAnswer) -> dict[str, Any] | None:
        """The body of a 2xx that speaks of items, else `None`."""
        if isinstance(answer, NoAnswer) or not 200 <= answer.status < 300:
            return None
        body = answer.json()
        return body if isinstance(body, dict) and isinstance(body.get("results"), list) else None

    def _outcomes(self, contacts: list[Contact], body: dict[str, Any]) -> list[Outcome]:
        """Match results and errors to contacts by trace id and key; their order means nothing."""
        traced = {str(place): place for place in range(len(contacts))}
        written = dict(self._written(contacts, traced, body["results"]))
        refused: dict[int, dict[str, Any]] = {}
        untraced: list[dict[str, Any]] = []
        for error in objects(body.get("errors")):
            places = [traced[trace] for trace in _context(error, "objectWriteTraceId") if trace in traced]
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

    def _written(
        self, contacts: list[Contact], traced: Mapping[str, int], results: list[Any]
    ) -> Iterator[tuple[int, tuple[str, bool | None]]]:
        """(position, (remote id, whether it is new)) of every result whose key and trace id do not contradict each
        other."""
        place_of = {contact.contact_id: place for place, contact in enumerate(contacts)}
        for record in objects(results):
            by_key = place_of.get(str(_properties(record).get(self._fields.id_property)))
            trace = record.get("objectWriteTraceId")
            by_trace = traced.get(trace) if isinstance(trace, str) else None
            place = by_trace if by_key is None else by_key
            if place is not None and by_trace in (None, place) and record.get("id") is not None:
                new = record.get("new")
                yield place, (str(record["id"]), new if isinstance(new, bool) else None)

    def _outcome(
        self,
        contact: Contact,
        written: tuple[str, bool | None] | None,
        error: dict[str, Any] | None,
        lost: str,
    ) -> Outcome:
        if error is None and written is not None:
            remote_id, created = written
            return Outcome(
                contact_id=contact.contact_id, state=EffectState.OK, remote_id=remote_id, created=created
            )
        if error is None or written is not None:
            state, code, words = EffectState.UNKNOWN, ErrorCode.OUTCOME_UNKNOWN, lost
            if error is not None:
                words = f"HubSpot reported both a result and an error: {message(error)}"
        elif error.get("category") in PASSING_CATEGORIES:
            state, code = EffectState.RETRY, ErrorCode.DESTINATION_UNAVAILABLE
            words = f"HubSpot could not take this contact now: {message(error)}"
        else:
            state, code = EffectState.FAILED, ErrorCode.DESTINATION_REJECTED
            words = f"HubSpot rejected this contact: {message(error)}"
        return Outcome(contact_id=contact.contact_id, state=state, code=code, detail=self._judge.words(words))


def _properties(record: Mapping[str, Any]) -> dict[str, Any]:
    values = record.get("properties")
    return values if isinstance(values, dict) else {}


def _context(error: Mapping[str, Any], name: str) -> Iterable[str]:
    """The strings under `context.<name>`, which HubSpot sends as a list."""
    context = error.get("context")
    value = context.get(name) if isinstance(context, dict) else None
    return [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, str)]


connect: Final[CrmFactory] = HubSpot
