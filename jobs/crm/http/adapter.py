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

With `match_on`, new records are looked for before they are sent (`jobs.crm.http.adoption`).

The options are `app.destinations.http_options.HttpOptions`; their templates make any other request
(`jobs.crm.http.requests`).
"""

import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, Unpack

from msgspec.structs import replace

from app.destinations.http_options import HttpOptions
from app.destinations.options import read_options
from app.destinations.presets import resolve_preset
from app.destinations.testing.rules import Step
from app.resources.declaration import Kind, Resource
from app.vocabulary.states import EffectState, ErrorCode
from jobs.crm.answers import nameless
from jobs.crm.exchange import Answer, Connection
from jobs.crm.http.adoption import Search
from jobs.crm.http.check import Check
from jobs.crm.http.items import FORGET, GONE, GONE_STATUSES, Results
from jobs.crm.http.judge import HttpJudge
from jobs.crm.http.reading import RecordReader
from jobs.crm.http.requests import CannotRequestError, Purpose, Request, Requests, TooLongError
from jobs.crm.http.tasks import Tasks
from jobs.crm.port import (
    Access,
    CrmFactory,
    Headers,
    Health,
    Keep,
    Listing,
    Outcome,
    ReadBack,
    Reply,
    SentRecord,
    keep_nothing,
)
from jobs.crm.tally import Tally

BATCH_SIZE: Final = 100


class Http:
    """One tenant's connection to one service (`jobs.crm.port.Crm`)."""

    appends = False
    learns = False
    bulk = None
    write_test = None

    def __init__(
        self,
        *,
        resource: Resource,
        options: dict[str, Any],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        **access: Unpack[Access],
    ) -> None:
        chosen = self._options = _of_type(read_options(resolve_preset(options), HttpOptions), resource.name)
        self._single = chosen.single
        self.batch_size = 1 if self._single else chosen.batch_size or BATCH_SIZE
        self.reads_back = chosen.read is not None or chosen.read_path is not None
        self.lists = chosen.listing is not None
        self.repeatable = chosen.repeatable or chosen.idempotent
        self._requests = Requests(chosen, resource)
        self.updates_apart = self._requests.has("update")
        removes = self._requests.has("delete") or chosen.archive_path is not None
        self.archives = removes or self._requests.marks_deleted
        self._connection = Connection(header=chosen.auth_header, scheme=chosen.auth_scheme, **access)
        self._judge = HttpJudge(access["authorizer"], now)
        self._words = (self._judge.words, self._judge.said)
        self._results = Results(chosen, *self._words)
        self._search = Search(chosen, resource, self._requests, self._connection, self._judge)
        self._tasks = Tasks(chosen, self._requests, self._connection, now)
        emails = [field.name for field in resource.fields if field.kind is Kind.EMAIL]
        self._reader = RecordReader(chosen, self._requests, self._judge, emails)
        self._check = Check(self._connection, self._judge, chosen, self._requests, self._reader)

    async def push(self, records: list[SentRecord], headers: Headers, keep: Keep = keep_nothing) -> Reply:
        """With `match_on` new records are looked for before, by one read; see `jobs.crm.port.Crm.push`."""
        if not self._search.wanted and not any(c.released for c in records):
            return await self._call(self._purpose(records), records, headers)
        tally = Tally(records)
        await self._release(tally, [c for c in records if c.released], headers)
        adopt = await self._search.look_for(tally, headers, keep) if tally.well else {}
        if tally.well and (rest := [adopt.get(c.record_id, c) for c in tally.open()]):
            reply = await self._call(self._purpose(rest), rest, headers, seconds=self._connection.left(tally.seconds))
            # Without an id of theirs, ours says that the record needs not be looked for again.
            tally.add(replace(reply, outcomes=[_known(c, o) for c, o in zip(rest, reply.outcomes, strict=True)]))
        return tally.reply()

    def _purpose(self, records: list[SentRecord]) -> Purpose:
        return "update" if self.updates_apart and all(c.remote_id is not None for c in records) else "write"

    async def _release(self, tally: Tally, records: list[SentRecord], headers: Headers) -> None:
        """A call of their own: without our key, its results name them by their own ids."""
        if not records:
            return
        if self._options.item is not None or self._single:
            words = "a record of the service's own can be released in the default shape alone, without templates"
            tally.add(self._refused(records, words))
            return
        by_own_id = Results(replace(self._options, result_id=self._options.result_remote_id), *self._words)
        named = [replace(c, record_id=c.remote_id or "") for c in records]
        reply = await self._call("write", named, headers, results=by_own_id)
        pairs = zip(records, reply.outcomes, strict=True)
        tally.add(replace(reply, outcomes=[replace(o, record_id=c.record_id) for c, o in pairs]))

    async def check(self, headers: Headers) -> list[Step]:
        """See `jobs.crm.http.check`."""
        steps = [await self._check.run(headers)]
        if self._requests.strange_fields:
            names = ", ".join(self._requests.strange_fields)
            words = (
                f"The template names fields that this type of record does not have, so they are never sent: {names}."
            )
            steps.append(Step(name="template", ok=None, detail=words))
        return steps

    async def archive(self, records: list[SentRecord], headers: Headers) -> Reply:
        """By `delete`, by `archive_path`, or as records that are marked as deleted; see `jobs.crm.port.Crm.archive`."""
        if not self.archives:
            return self._cannot(records)
        if self._requests.has("delete"):
            return await self._delete(records, headers)
        path = self._options.archive_path
        if path is not None:
            payload = {"ids": [c.record_id for c in records]}
            request = Request(method="POST", path=path, payload=payload)
            return await self._send(request, "delete", records, headers, self._results)
        return await self._call("write", records, headers)

    async def read_back(self, records: list[SentRecord], headers: Headers, *, by_fields: bool = False) -> ReadBack:
        """By `read` or `read_path`; see `jobs.crm.port.Crm.read_back`."""
        if not records:
            return ReadBack(seen={}, health=Health.WELL)
        try:
            requests = self._reading(records)
        except CannotRequestError as error:
            return ReadBack(seen={}, health=Health.WELL, detail=self._judge.words(str(error)))
        back = ReadBack(seen={}, health=Health.WELL)
        for asked, request in requests:
            answer = await self._connection.call(
                request.method,
                request.path,
                request.content,
                headers,
                headers=self._requests.headers(),
                seconds=self._connection.left(back.seconds),
            )
            read = self._reader.read(asked, answer, by_fields=by_fields)
            back = read if len(requests) == 1 else _joined(back, read)
            if read.seen is None:
                break
        return back

    def _reading(self, records: list[SentRecord]) -> list[tuple[list[SentRecord], Request]]:
        """As many requests as their addresses have room for. Raises `CannotRequestError`."""
        try:
            return [(records, self._reader.request(records))]
        except TooLongError:
            middle = len(records) // 2
            if not middle:
                raise
            return self._reading(records[:middle]) + self._reading(records[middle:])

    async def list_keys(self, after: str | None, headers: Headers) -> Listing:
        """By `listing`; see `jobs.crm.port.Crm.list_keys`."""
        request = self._requests.page(after)
        answer = await self._connection.call(
            request.method, request.path, request.content, headers, headers=self._requests.headers()
        )
        return self._reader.read_page(answer, after)

    async def _delete(self, records: list[SentRecord], headers: Headers) -> Reply:
        """Without those that a call would have to name by an id that nobody knows."""
        named = records
        if self._requests.needs_remote_id("delete"):
            named = [record for record in records if record.remote_id]
        if len(named) == len(records):
            return await self._call("delete", records, headers)
        reply = await self._call("delete", named, replace(headers, event_id=_id_of(headers, named)))
        words = self._judge.words("its id there, which the call to remove it contains, is not known")
        outcomes = {outcome.record_id: outcome for outcome in reply.outcomes}
        for record in records:
            if not record.remote_id:
                outcomes[record.record_id] = (
                    nameless(record)
                    if self.reads_back
                    else Outcome(record.record_id, EffectState.FAILED, ErrorCode.DESTINATION_REJECTED, words)
                )
        return replace(reply, outcomes=[outcomes[record.record_id] for record in records])

    async def _call(
        self,
        purpose: Purpose,
        records: list[SentRecord],
        headers: Headers,
        *,
        results: Results | None = None,
        seconds: float | None = None,
    ) -> Reply:
        if not records:
            return Reply(outcomes=[], health=Health.WELL)
        try:
            request = self._requests.make(purpose, records)
        except TooLongError as error:
            if len(records) == 1:
                return self._refused(records, self._judge.words(str(error)))
            refusal = (EffectState.RETRY, ErrorCode.DESTINATION_REJECTED, self._judge.words(str(error)))
            outcomes = [Outcome(record.record_id, *refusal) for record in records]
            return Reply(outcomes=outcomes, health=Health.WELL, rejected_whole=True)
        except CannotRequestError as error:
            return self._refused(records, self._judge.words(str(error)))
        return await self._send(request, purpose, records, headers, results or self._results, seconds)

    async def _send(
        self,
        request: Request,
        purpose: Purpose,
        records: list[SentRecord],
        headers: Headers,
        results: Results,
        seconds: float | None = None,
    ) -> Reply:
        if not records:
            return Reply(outcomes=[], health=Health.WELL)
        began = time.monotonic()
        own = {**self._requests.headers(), "Idempotency-Key": _event_id(purpose, records, headers)}
        answer = await self._connection.call(
            request.method, request.path, request.content, headers, headers=own, seconds=seconds
        )
        if isinstance(answer, Answer) and self._single and answer.status in GONE_STATUSES:
            gone = self._gone(purpose, records, answer)
            if gone is not None:
                return gone
        reply = None
        if isinstance(answer, Answer) and answer.well:
            ended = await self._tasks.end(answer, headers, began)
            if ended is not None and ended.state == "failed":
                return results.failed_task(records, ended.answer)
            answer = answer if ended is None else ended.answer
            reply = results.reply(records, answer, request.payload)
            if reply is not None and purpose == "write" and self._requests.needs_remote_id("update"):
                reply = replace(reply, outcomes=[self._with_id(outcome) for outcome in reply.outcomes])
        return reply or self._judge.reply(records, answer)

    def _with_id(self, outcome: Outcome) -> Outcome:
        """A record that is updated by its id there, and whose id nobody knows, would be created once more."""
        if outcome.state is not EffectState.OK or outcome.remote_id:
            return outcome
        where = self._options.result_remote_id
        words = f"its answer has no id of it under {where!r} (option result_remote_id)"
        detail = self._judge.words(f"the destination took this record, but {words}")
        return replace(outcome, state=EffectState.UNKNOWN, code=ErrorCode.OUTCOME_UNKNOWN, detail=detail)

    def _gone(self, purpose: Purpose, records: list[SentRecord], answer: Answer) -> Reply | None:
        """404 or 410 to a call about one record that was there; of any other, that the address is wrong."""
        if purpose == "delete":
            outcomes = [Outcome(record.record_id, EffectState.OK) for record in records]
        elif purpose == "update":
            detail = self._judge.words(f"the destination answered {answer.status}: {GONE}")
            refusal = (EffectState.FAILED, ErrorCode.DESTINATION_REJECTED, detail)
            outcomes = [Outcome(record.record_id, *refusal, remote_id=FORGET) for record in records]
        else:
            return None
        return Reply(outcomes=outcomes, health=Health.WELL, seconds=answer.seconds, status=answer.status)

    def _cannot(self, records: list[SentRecord]) -> Reply:
        return self._refused(
            records, "this destination cannot remove records: give it an archive_path, a deleted_field or a delete"
        )

    def _refused(self, records: list[SentRecord], words: str) -> Reply:
        """Without a call."""
        refusal = (EffectState.FAILED, ErrorCode.DESTINATION_REJECTED, words)
        return Reply(outcomes=[Outcome(c.record_id, *refusal) for c in records], health=Health.WELL, detail=words)


def _known(record: SentRecord, outcome: Outcome) -> Outcome:
    if outcome.state is not EffectState.OK or record.deleted:
        return outcome
    created = False if record.adopted else outcome.created
    return replace(outcome, created=created, remote_id=outcome.remote_id or record.remote_id or record.record_id)


def _joined(first: ReadBack, second: ReadBack) -> ReadBack:
    """Of two parts of the records; nothing is known if the second read failed."""
    seconds = first.seconds + second.seconds
    if first.seen is None or second.seen is None:
        return replace(second, seconds=seconds)
    return replace(
        second,
        seconds=seconds,
        seen=first.seen | second.seen,
        remote_ids=first.remote_ids | second.remote_ids,
        differences=first.differences | second.differences,
    )


def _event_id(purpose: Purpose, records: list[SentRecord], headers: Headers) -> str:
    """With ids of theirs it is another call than one without."""
    theirs = [c for c in records if purpose == "update" or c.adopted or c.released]
    return _id_of(headers, theirs) if theirs else headers.event_id


def _id_of(headers: Headers, records: list[SentRecord]) -> str:
    named = [f"{c.record_id}\0{c.remote_id}" for c in records]
    return str(uuid.uuid5(uuid.NAMESPACE_URL, "\0".join([headers.event_id, *named])))


def _of_type(options: HttpOptions, type: str) -> HttpOptions:
    """Paths and wrapper with the name of the type in its place."""
    texts = {name: getattr(options, name) for name in ("path", "read_path", "archive_path", "wrapper")}
    return replace(options, **{name: text and text.replace("{type}", type) for name, text in texts.items()})


connect: Final[CrmFactory] = Http
