"""Any service that takes batches of records as JSON over HTTP; its options say how it wants them.

By default, of a call along `path`:

    POST /contacts
    Authorization: Bearer TOKEN
    X-Request-ID, X-Event-ID, and Idempotency-Key: the same records in the same versions have the same key,
    until an operator has them sent again or other options give them another shape

    {"contacts":[{"id":"c1","version":3,"deleted":false,"email":"ada@example.org","first_name":"Ada",
      "phone":null,"attributes":{"tier":"gold"}}]}

    200 {"results":[{"id":"c1","ok":true,"created":true},{"id":"c2","ok":false,"error":"no such country"}]}

What nobody named is not in it; `null` is what was cleared, until the service has taken it once.

A 2xx whose body says no, or that the call is queued, makes no record `ok` (`jobs.crm.http.refusals`).

With `read_path`, of a read, where a record in our version or a newer one is what we sent:

    POST /contacts/read {"ids":["c1","c2"]}
    200 {"contacts":[{"id":"c1","version":3,…}]}

With `match_on`, of a read that looks for records which go there for the first time. One without our key is then sent
with its own id beside ours, and with `"id":null` when it is released:

    POST /contacts/read {"email":["ada@example.org"]}
    200 {"contacts":[{"id":null,"remote_id":"r7","email":"ada@example.org",…}]}
    POST /contacts {"contacts":[{"id":"c1","remote_id":"r7",…}]}

The options are `app.destinations.kinds.HttpOptions`.
"""

import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, Unpack

from msgspec.structs import replace

from app.deliveries.before_images import Adoption, FieldBefore
from app.destinations.kinds import LOOKED_FOR_BY_READ, HttpOptions
from app.destinations.options import OptionsError, read_options
from app.destinations.testing.rules import Step
from app.resources.declaration import Resource
from app.resources.documents import ATTRIBUTE
from app.vocabulary.states import EffectState, ErrorCode
from jobs.crm.answers import Judge, Wait, message, objects
from jobs.crm.exchange import Answer, Connection
from jobs.crm.http import check
from jobs.crm.http.items import Results, key_of, remote_id_of
from jobs.crm.http.refusals import Reader, found
from jobs.crm.mapping import FieldMap, same, text
from jobs.crm.matching import NOT_KEPT, Found, adopted, group, later, match, refusal
from jobs.crm.port import (
    Access,
    CrmFactory,
    Headers,
    Health,
    Keep,
    Outcome,
    ReadBack,
    Reply,
    Seen,
    SentRecord,
    keep_nothing,
)
from jobs.crm.tally import Tally

BATCH_SIZE: Final = 100
_LEAST: Final = 0.5
"""Seconds that even the last call of a push is given."""


class HttpJudge(Judge):
    """Judges the answers of a service of which nothing is known but HTTP."""

    vendor = "the destination"

    def said(self, body: Any) -> str:
        """Problem details (RFC 9457), `message`, or `error` in any of its usual shapes."""
        if not isinstance(body, dict):
            return ""
        error = body.get("error")
        inner = message(error) if isinstance(error, dict) else error
        words = [message(body), inner, body.get("title"), body.get("detail")]
        return ": ".join(dict.fromkeys(word for word in words if isinstance(word, str) and word))

    def wait(self, answer: Answer, body: Any) -> Wait | None:
        """409 with `Retry-After`: the first call with this Idempotency-Key is still running."""
        asked = self.asked(answer)
        if answer.status == 409 and asked is not None:
            return Wait(seconds=asked)
        return super().wait(answer, body)


class Http:
    """One tenant's connection to one service (`jobs.crm.port.Crm`)."""

    learns = False

    def __init__(
        self,
        *,
        resource: Resource,
        options: dict[str, Any],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        **access: Unpack[Access],
    ) -> None:
        chosen = self._options = _of_type(read_options(options, HttpOptions), resource.name)
        self.batch_size = chosen.batch_size or BATCH_SIZE
        self.reads_back = chosen.read_path is not None
        self.repeatable = chosen.idempotent
        self.archives = chosen.archive_path is not None or chosen.deleted_field is not None
        self._connection = Connection(header=chosen.auth_header, scheme=chosen.auth_scheme, **access)
        self._judge = HttpJudge(access["authorizer"], now)
        self._words = (self._judge.words, self._judge.said)
        self._results = Results(chosen, *self._words)
        self._named = chosen.fields_of(resource.name)
        # Within attributes_field no attribute has a name of its own.
        name_of = str if chosen.attributes_field is None else lambda _: None
        self._map = FieldMap(chosen, resource, key=chosen.id_field, name_of=name_of)
        self._matched_by = chosen.match_field(resource) or ""
        self._match = self._map.name_at(self._matched_by)
        """The field there that new records are looked for by."""
        if self._match is not None and not self.reads_back:
            raise OptionsError(f"options.match_on: {LOOKED_FOR_BY_READ}")

    async def push(self, records: list[SentRecord], headers: Headers, keep: Keep = keep_nothing) -> Reply:
        """With `match_on` new records are looked for before, by one read; see `jobs.crm.port.Crm.push`."""
        if self._match is None and not any(c.released for c in records):
            return await self._send(records, headers)
        tally = Tally(records)
        await self._release(tally, [c for c in records if c.released], headers)
        adopt = await self._look_for(tally, headers, keep) if tally.well else {}
        if tally.well and (rest := [adopt.get(c.record_id, c) for c in tally.open()]):
            reply = await self._send(rest, headers, seconds=self._left(tally))
            # Without an id of theirs, ours says that the record needs not be looked for again.
            tally.add(replace(reply, outcomes=[self._known(c, o) for c, o in zip(rest, reply.outcomes, strict=True)]))
        return tally.reply()

    async def _send(
        self,
        records: list[SentRecord],
        headers: Headers,
        results: Results | None = None,
        *,
        seconds: float | None = None,
    ) -> Reply:
        items = [self._item(record) for record in records]
        wrapper = self._options.wrapper
        payload: object = items
        for name in reversed(wrapper.split(".") if wrapper is not None else ()):
            payload = {name: payload}
        return await self._call(self._options.method, self._options.path, payload, records, headers, results, seconds)

    async def _release(self, tally: Tally, records: list[SentRecord], headers: Headers) -> None:
        """A call of their own: without our key, its results name them by their own ids."""
        if not records:
            return
        by_own_id = Results(replace(self._options, result_id=self._options.result_remote_id), *self._words)
        named = [replace(c, record_id=c.remote_id or "") for c in records]
        reply = await self._send(named, headers, by_own_id)
        pairs = zip(records, reply.outcomes, strict=True)
        tally.add(replace(reply, outcomes=[replace(o, record_id=c.record_id) for c, o in pairs]))

    async def _look_for(self, tally: Tally, headers: Headers, keep: Keep) -> dict[str, SentRecord]:
        """Those of the new records that are there, as they are to be written."""
        name, options = self._match, self._options
        new = [c for c in tally.open() if c.remote_id is None and not c.deleted]
        pairs = [(c, value) for c in new if name and (value := text(self._map.sources(c).get(name)).strip())]
        if name is None or not pairs:
            return {}
        looked = [c for c, _ in pairs]
        wanted = {name: list(dict.fromkeys(value for _, value in pairs))}
        answer = await self._connection.call(
            "POST", options.read_path or "", wanted, headers, seconds=self._left(tally)
        )
        body = answer.json() if answer.well else None
        results = found(body, options.wrapper or "")
        if not isinstance(results, list) or Reader([], options.id_field).read(body, results=results).unexplained:
            tally.add(self._judge.not_done(looked, answer))
            return {}
        tally.note(answer)
        there = [
            (
                result.get(name),
                Found(remote_id_of(result, options) or "", key_of(result, options.id_field) or None, result),
            )
            for result in objects(results)
            if found(result, options.deleted_field or "deleted") is not True
        ]
        matches = match(pairs, group(there), field=self._matched_by)
        tally.outcomes |= matches.refused
        adopt = [(c, one) for c in looked if (one := matches.adopt.get(c.record_id)) is not None]
        nameless = [c for c, one in adopt if not one.remote_id]
        words = (
            f"it is there without our key, and without {options.result_remote_id!r}, by which it could be written to"
        )
        tally.outcomes |= {c.record_id: refusal(c, words) for c in nameless}
        adoptions = {
            c.record_id: Adoption(c.record_id, one.remote_id, self._before(c, one.values))
            for c, one in adopt
            if one.remote_id
        }
        kept = await keep(list(adoptions.values())) if adoptions else frozenset()
        tally.outcomes |= {c.record_id: later(c, NOT_KEPT) for c, _ in adopt if c.record_id in adoptions.keys() - kept}
        return {c.record_id: adopted(c, adoptions[c.record_id]) for c, _ in adopt if c.record_id in kept}

    def _left(self, tally: Tally) -> float | None:
        """Seconds for another call: all of a push are within one total timeout, which the lease goes by."""
        return max(self._connection.timeouts.total - tally.seconds, _LEAST) if tally.seconds else None

    def _theirs(self, record: SentRecord) -> dict[str, Any]:
        """The id of its record there, as an item has it."""
        value: Any = record.remote_id
        for name in reversed(self._options.result_remote_id.split(".")):
            value = {name: value}
        return dict(value)

    def _before(self, record: SentRecord, values: Mapping[str, Any]) -> list[FieldBefore]:
        """What it holds of that which is about to be overwritten, attributes in an object of their own included."""
        nested = self._options.attributes_field
        before = self._map.before(record, values)
        if nested is not None:
            held = values.get(nested)
            theirs = held if isinstance(held, dict) else {}
            rest = [name for name in record.attributes if name not in self._named]
            before += [FieldBefore(f"{ATTRIBUTE}{name}", (nested, name), theirs.get(name)) for name in rest]
        return before

    def _known(self, record: SentRecord, outcome: Outcome) -> Outcome:
        if outcome.state is not EffectState.OK or record.deleted:
            return outcome
        created = False if record.adopted else outcome.created
        return replace(outcome, created=created, remote_id=outcome.remote_id or record.remote_id or record.record_id)

    async def check(self, headers: Headers) -> list[Step]:
        """See `jobs.crm.http.check`."""
        return [await check.check(self._connection, self._judge, self._options, headers)]

    async def archive(self, records: list[SentRecord], headers: Headers) -> Reply:
        """By `archive_path`, or as records that are marked as deleted; see `jobs.crm.port.Crm.archive`."""
        path = self._options.archive_path
        if path is not None:
            return await self._call("POST", path, {"ids": [c.record_id for c in records]}, records, headers)
        if self._options.deleted_field is None:
            return self._cannot(records)
        return await self._send(records, headers)

    async def read_back(self, records: list[SentRecord], headers: Headers) -> ReadBack:
        """By `read_path`; see `jobs.crm.port.Crm.read_back`."""
        path = self._options.read_path
        if path is None:
            raise ValueError("there is no read_path")
        if not records:
            return ReadBack(seen={}, health=Health.WELL)
        ids = {"ids": [record.record_id for record in records]}
        answer = await self._connection.call("POST", path, ids, headers)
        body = answer.json() if answer.well else None
        results = found(body, self._options.wrapper or "")
        if not isinstance(results, list):
            return self._judge.unread(answer)
        refusals = Reader(records, self._options.id_field).read(body, results=results)
        if refusals.unexplained:
            return self._judge.unread(answer)  # an answer that says no shows nobody absent
        missing = found(body, "missing")
        by_key = {key_of(result, self._options.id_field): result for result in objects(results)}
        seen: dict[str, Seen] = {}
        remote_ids: dict[str, str] = {}
        for place, record in enumerate(records):
            result = by_key.get(record.record_id)
            if result is None and place in refusals.named:
                continue  # it could not be read, which is not to say that it is not there
            if result is None or found(result, self._options.deleted_field or "deleted") is True:
                if result is not None or not isinstance(missing, list) or record.record_id in missing:
                    seen[record.record_id] = Seen.ABSENT
                continue
            seen[record.record_id] = self._compare(record, result)
            remote_ids[record.record_id] = remote_id_of(result, self._options) or record.record_id
        return ReadBack(
            seen=seen, remote_ids=remote_ids, health=Health.WELL, seconds=answer.seconds, status=answer.status
        )

    def _compare(self, record: SentRecord, result: dict[str, Any]) -> Seen:
        """By version; a service that does not receive ours, or returns none, is compared field by field."""
        if record.deleted:
            return Seen.DIFFERS
        field = self._options.version_field
        version = found(result, field) if field is not None else None
        if isinstance(version, int) and not isinstance(version, bool):
            return Seen.MATCHES if version >= record.version else Seen.DIFFERS
        ours = self._fields(record)
        nested = self._options.attributes_field
        attributes = ours.pop(nested, {}) if nested is not None else {}
        held = result.get(nested) if nested is not None else None
        theirs = held if isinstance(held, dict) else {}
        matches = all(
            same(value, result.get(name), fold=name in self._map.folded) for name, value in ours.items()
        ) and all(same(value, theirs.get(name)) for name, value in attributes.items())
        return Seen.MATCHES if matches else Seen.DIFFERS

    async def _call(
        self,
        method: str,
        path: str,
        payload: object,
        records: list[SentRecord],
        headers: Headers,
        results: Results | None = None,
        seconds: float | None = None,
    ) -> Reply:
        if not records:
            return Reply(outcomes=[], health=Health.WELL)
        theirs = [f"{c.record_id}\0{c.remote_id}" for c in records if c.adopted or c.released]
        # With ids of theirs it is another call than one without.
        event_id = (
            str(uuid.uuid5(uuid.NAMESPACE_URL, "\0".join([headers.event_id, *theirs]))) if theirs else headers.event_id
        )
        key = {"Idempotency-Key": event_id}
        answer = await self._connection.call(method, path, payload, headers, headers=key, seconds=seconds)
        reply = None
        if isinstance(answer, Answer) and answer.well:
            reply = (results or self._results).reply(records, answer, payload)
        return reply or self._judge.reply(records, answer)

    def _item(self, record: SentRecord) -> dict[str, Any]:
        options = self._options
        if record.released:
            return {options.id_field: None, **self._theirs(record)} | self._fields(record)
        item: dict[str, Any] = {options.id_field: record.record_id}
        if record.adopted:
            item |= self._theirs(record)
        if options.version_field is not None:
            item[options.version_field] = record.version
        if options.deleted_field is not None:
            item[options.deleted_field] = record.deleted
        return item if record.deleted else item | self._fields(record)

    def _fields(self, record: SentRecord) -> dict[str, Any]:
        """Fields and attributes; those attributes that `fields` does not name are in an object of their own."""
        values = self._without_cleared(self._map.sources(record))
        if self._options.attributes_field is not None:
            rest = record.attributes
            if self._named:
                rest = {name: value for name, value in rest.items() if name not in self._named}
            rest = self._without_cleared(rest)
            if rest:
                values[self._options.attributes_field] = rest
        for field in record.restored:
            if len(field.path) > 1 and (field.value is not None or self._options.nulls == "send"):
                values.setdefault(field.path[0], {})[field.path[1]] = field.value
        return values

    def _without_cleared(self, values: dict[str, Any]) -> dict[str, Any]:
        """Without what was cleared, where the service does not take nulls."""
        if self._options.nulls == "send":
            return values
        return {name: value for name, value in values.items() if value is not None}

    def _cannot(self, records: list[SentRecord]) -> Reply:
        words = "this destination has no way to take a record away: give it an archive_path or a deleted_field"
        refusal = (EffectState.FAILED, ErrorCode.DESTINATION_REJECTED, words)
        outcomes = [Outcome(c.record_id, *refusal) for c in records]
        return Reply(outcomes=outcomes, health=Health.WELL, detail=words)


def _of_type(options: HttpOptions, type: str) -> HttpOptions:
    """Paths and wrapper with the name of the type in its place."""
    texts = {name: getattr(options, name) for name in ("path", "read_path", "archive_path", "wrapper")}
    return replace(options, **{name: text and text.replace("{type}", type) for name, text in texts.items()})


connect: Final[CrmFactory] = Http
