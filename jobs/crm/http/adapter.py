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

The options are `app.destinations.kinds.HttpOptions`.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, Unpack

from msgspec.structs import replace

from app.destinations.kinds import HttpOptions
from app.destinations.options import read_options
from app.destinations.testing.rules import Step
from app.resources.declaration import Resource
from app.vocabulary.states import EffectState, ErrorCode
from jobs.crm.answers import Judge, Wait, message, objects
from jobs.crm.exchange import Answer, Connection
from jobs.crm.http import check
from jobs.crm.http.items import Results, key_of, remote_id_of
from jobs.crm.http.refusals import Reader, found
from jobs.crm.mapping import FieldMap, same
from jobs.crm.port import Access, CrmFactory, Headers, Health, Outcome, ReadBack, Reply, Seen, SentRecord

BATCH_SIZE: Final = 100


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
        self._results = Results(chosen, self._judge.words, self._judge.said)
        self._named = chosen.fields_of(resource.name)
        # Within attributes_field no attribute has a name of its own.
        name_of = str if chosen.attributes_field is None else lambda _: None
        self._map = FieldMap(chosen, resource, key=chosen.id_field, name_of=name_of)

    async def push(self, records: list[SentRecord], headers: Headers) -> Reply:
        """See `jobs.crm.port.Crm.push`."""
        items = [self._item(record) for record in records]
        wrapper = self._options.wrapper
        payload: object = items
        for name in reversed(wrapper.split(".") if wrapper is not None else ()):
            payload = {name: payload}
        return await self._call(self._options.method, self._options.path, payload, records, headers)

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
        return await self.push(records, headers)

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
        self, method: str, path: str, payload: object, records: list[SentRecord], headers: Headers
    ) -> Reply:
        if not records:
            return Reply(outcomes=[], health=Health.WELL)
        key = {"Idempotency-Key": headers.event_id}
        answer = await self._connection.call(method, path, payload, headers, headers=key)
        reply = None
        if isinstance(answer, Answer) and answer.well:
            reply = self._results.reply(records, answer, payload)
        return reply or self._judge.reply(records, answer)

    def _item(self, record: SentRecord) -> dict[str, Any]:
        options = self._options
        item: dict[str, Any] = {options.id_field: record.record_id}
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
