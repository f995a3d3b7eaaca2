"""HubSpot: contacts by batch upsert and batch read, keyed by a unique property of ours.

The account needs one contact property with unique values that holds our business key: `tranche_id`, or what
the destination's options name.

Options (all optional):
    id_property: that property's internal name; default `tranche_id`.
    properties: {attribute: HubSpot property, or null to keep it at home}; see `hubspot_fields.Fields`.
    time_zone: the account's IANA time zone, in which its daily quota starts anew; default UTC.

Sources: HubSpot's reference of the contacts batch endpoints, its error handling and its usage guidelines. Every
field of an answer is treated as optional, as that page asks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import aiohttp
import msgspec

from app.domain.outcomes import EffectState, ErrorCode
from jobs.crm.exchange import Answer, NoAnswer, for_humans, retry_after, send
from jobs.crm.hubspot_fields import Fields
from jobs.crm.port import Contact, Health, Outcome, Pause, ReadBack, Reply, Seen, Timeouts

UPSERT: Final = "/crm/v3/objects/contacts/batch/upsert"
READ: Final = "/crm/v3/objects/contacts/batch/read"
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

POLICY_SECONDS: Final = {"SECONDLY": 1.0, "TEN_SECONDLY_ROLLING": 10.0}
LOCK_SECONDS: Final = 2.0
MIGRATION_SECONDS: Final = 10.0
SHORTEST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 86_400.0


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What an answer, or the lack of one, means for all contacts of the call alike."""

    health: Health
    detail: str
    state: EffectState = EffectState.RETRY
    code: ErrorCode = ErrorCode.DESTINATION_UNAVAILABLE
    pause: Pause | None = None
    refused: bool = False
    """The batch as such was refused (a 400): with several contacts nobody knows which is guilty."""


class HubSpot:
    """One tenant's connection to one HubSpot account (`jobs.crm.port.Crm`)."""

    batch_size = BATCH_SIZE

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
        try:
            self._zone = ZoneInfo(options.get("time_zone", "UTC"))
        except (ZoneInfoNotFoundError, ValueError, TypeError, OSError) as error:
            raise ValueError(f"time_zone is no known IANA time zone: {options['time_zone']!r}") from error
        self._fields = Fields(options.get("id_property", "tranche_id"), options.get("properties", {}))
        self._session = session
        self._base_url = base_url.rstrip("/")
        self._token = token
        self._timeouts = timeouts
        self._now = now

    async def push(self, contacts: list[Contact], *, request_id: str) -> Reply:
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
        answer = await self._call(UPSERT, {"inputs": inputs}, request_id)
        body = self._items(answer)
        if body is not None:
            outcomes = self._outcomes(contacts, body)
            return Reply(outcomes=outcomes, health=Health.WELL, seconds=answer.seconds)
        verdict = self._judge(answer)
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
            detail=verdict.detail,
        )

    async def read_back(self, contacts: list[Contact], *, request_id: str) -> ReadBack:
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
        answer = await self._call(READ, payload, request_id)
        body = self._items(answer)
        if body is None:
            verdict = self._judge(answer)
            return ReadBack(
                seen=None,
                health=verdict.health,
                pause=verdict.pause,
                seconds=answer.seconds,
                detail=verdict.detail,
            )
        by_key = {contact.contact_id: contact for contact in contacts}
        seen: dict[str, Seen] = {}
        remote_ids: dict[str, str] = {}
        for error in _objects(body.get("errors")):
            if error.get("category") == "OBJECT_NOT_FOUND":
                seen |= {key: Seen.ABSENT for key in _context(error, "ids") if key in by_key}
        for record in _objects(body["results"]):
            values = record.get("properties")
            contact = by_key.get(values.get(self._fields.id_property)) if isinstance(values, dict) else None
            if contact is not None:
                seen[contact.contact_id] = (
                    Seen.MATCHES if self._fields.match(contact, values) else Seen.DIFFERS
                )
                if record.get("id") is not None:
                    remote_ids[contact.contact_id] = str(record["id"])
        return ReadBack(seen=seen, remote_ids=remote_ids, health=Health.WELL, seconds=answer.seconds)

    async def _call(self, path: str, payload: object, request_id: str) -> Answer | NoAnswer:
        headers = {
            "Authorization": f"Bearer {self._token}",
            "X-Request-ID": "".join(c for c in request_id if c.isascii() and c.isprintable()),
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
        for error in _objects(body.get("errors")):
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
            lost = f"{lost}; it said: {_message(untraced[0])}"
        return [
            self._outcome(contact, written.get(place), refused.get(place), lost)
            for place, contact in enumerate(contacts)
        ]

    def _written(self, contacts: list[Contact], results: list[Any]) -> Iterator[tuple[int, str]]:
        """(position, remote id) of every result whose key and trace id do not contradict each other."""
        place_of = {contact.contact_id: place for place, contact in enumerate(contacts)}
        for record in _objects(results):
            values = record.get("properties")
            by_key = place_of.get(values.get(self._fields.id_property)) if isinstance(values, dict) else None
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
                words = f"HubSpot reported both a result and an error: {_message(error)}"
        elif error.get("category") in PASSING_CATEGORIES:
            state, code = EffectState.RETRY, ErrorCode.DESTINATION_UNAVAILABLE
            words = f"HubSpot could not take this contact now: {_message(error)}"
        else:
            state, code = EffectState.FAILED, ErrorCode.DESTINATION_REJECTED
            words = f"HubSpot rejected this contact: {_message(error)}"
        return Outcome(
            contact_id=contact.contact_id, state=state, code=code, detail=for_humans(words, self._token)
        )

    def _judge(self, answer: Answer | NoAnswer) -> Verdict:
        """The meaning of everything but a 2xx that can be read."""
        if isinstance(answer, NoAnswer):
            detail = for_humans(f"no answer from HubSpot: {answer.detail}", self._token)
            if not answer.sent:
                return Verdict(health=Health.CRM_FAULT, detail=detail)
            return _unknown(detail)
        body = answer.json()
        said = _message(body) if isinstance(body, dict) else answer.trouble
        detail = for_humans(f"HubSpot answered {answer.status}: {said}".removesuffix(": "), self._token)
        status = answer.status
        if status < 300:
            return _unknown(for_humans(f"{detail} (unusable body)", self._token))
        if status == 400 and "non-unique" in said and self._fields.id_property in said:
            return Verdict(health=Health.CONNECTION_FAULT, detail=detail)
        if status in (423, 429, 477, 503):
            return self._judge_wait(answer, body, detail)
        if status < 400 or status in (
            401,
            403,
            404,
            405,
            407,
        ):  # a redirect is not followed: the address is wrong
            return Verdict(health=Health.CONNECTION_FAULT, detail=detail)
        if status < 500 and status != 408:
            return Verdict(health=Health.WELL, detail=detail, refused=True)
        return _unknown(detail)  # 408 and 5xx may come from a gateway in front of a CRM that did the work

    def _judge_wait(self, answer: Answer, body: Any, detail: str) -> Verdict:
        """423, 429, 477 (the account is being moved) and 503: nothing was done, come back later."""
        asked = retry_after(answer.headers, self._now())
        if answer.status == 503:
            pause = None if asked is None else _pause(asked, detail)
            return Verdict(health=Health.CRM_FAULT, detail=detail, pause=pause)
        if answer.status == 423:
            return Verdict(
                health=Health.WELL, detail=detail, pause=_pause(max(asked or 0, LOCK_SECONDS), detail)
            )
        if answer.status == 477:
            seconds = MIGRATION_SECONDS if asked is None else asked
            return Verdict(health=Health.WELL, detail=detail, pause=_pause(seconds, detail))
        policy = body.get("policyName") if isinstance(body, dict) else None
        if asked is None:
            asked = self._until_midnight() if policy == "DAILY" else POLICY_SECONDS.get(str(policy), 10.0)
        return Verdict(
            health=Health.WELL,
            code=ErrorCode.DESTINATION_RATE_LIMIT,
            detail=detail,
            pause=_pause(asked, detail),
        )

    def _until_midnight(self) -> float:
        """Seconds until the account's quota of the day starts anew."""
        now = self._now()
        tomorrow = (now.astimezone(self._zone) + timedelta(days=1)).date()
        midnight = datetime(tomorrow.year, tomorrow.month, tomorrow.day, tzinfo=self._zone)
        return (midnight - now).total_seconds() + 1.0


def _unknown(detail: str) -> Verdict:
    return Verdict(
        health=Health.CRM_FAULT, detail=detail, state=EffectState.UNKNOWN, code=ErrorCode.OUTCOME_UNKNOWN
    )


def _pause(seconds: float, detail: str) -> Pause:
    return Pause(min(max(seconds, SHORTEST_PAUSE), LONGEST_PAUSE), detail)


def _objects(value: object) -> Iterator[dict[str, Any]]:
    if isinstance(value, list):
        yield from (item for item in value if isinstance(item, dict))


def _context(error: Mapping[str, Any], name: str) -> Iterable[str]:
    """The strings under `context.<name>`, which HubSpot sends as a list."""
    context = error.get("context")
    value = context.get(name) if isinstance(context, dict) else None
    return [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, str)]


def _place(trace: object, contacts: list[Contact]) -> int | None:
    if isinstance(trace, str) and trace.isascii() and trace.isdigit() and int(trace) < len(contacts):
        return int(trace)
    return None


def _message(body: Mapping[str, Any]) -> str:
    """The vendor's own words, with those of the nested errors where there are any."""
    words = [body.get("message"), *(error.get("message") for error in _objects(body.get("errors")))]
    told = list(dict.fromkeys(word for word in words if isinstance(word, str) and word))
    return "; ".join(told) or str(body.get("category") or "")
