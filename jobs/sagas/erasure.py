"""Erasure: records are deleted, archived at their destinations, and then all that is known of them is removed.

One step, in phases. It names records in its own row alone, which forgets them at its end.

1. begin     note which transactions run: one may be of an import that was requested before
2. wait      for these, and for jobs that were requested before, which may still bring one of the records
3. delete    tombstones, with a delivery to every destination; older ones too that were not archived
4. deliver   wait until nothing of the records is to be sent any more
5. values    note their e-mail addresses and phone numbers, which texts may repeat
6. pages     whatever names them, a page of a table at a time
7. records   their versions and the records themselves; that they were erased is noted
8. snapshots what Redis keeps for the time in which PostgreSQL is away

A record that a job asked for later has brought again stays, and begins with that.
"""

import uuid
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final

import msgspec
from redis.exceptions import RedisError

from app.destinations.kinds import reach_of
from app.erasure import queries, rules
from app.erasure.queries import Erasure, Held, Older
from app.history import queries as history
from app.history.removal import forget_before, remove_versions
from app.history.versions import Place
from app.imports import processing_queries, upsert
from app.imports.batch.items import Items
from app.imports.outbox import book
from app.kit import snapshots
from app.resources import documents
from app.resources.declaration import Resource
from app.sagas.rules import Answer, Continue, Done, Failed
from app.vocabulary import outcomes_wire
from app.vocabulary.outcomes_wire import ItemOutcome
from app.vocabulary.states import ItemStatus, Result
from jobs.sagas import compensation
from jobs.sagas.runner import Step, StepContext, Workflow

_RECORDS: Final = 100
"""Of one transaction."""
_NOTE: Final = "the record was erased; if it is still there, remove it at the destination yourself"


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """What its sagas remember.

    `running`: transactions. `after`: the last row of the page before. `done`: of the records.
    """

    ids: list[str] = []
    hashes: list[str] = []
    running: list[str] = []
    values: list[str] = []
    phase: str = "begin"
    after: list[Any] = []
    done: int = 0


class _Work(msgspec.Struct, frozen=True):
    context: StepContext
    job: Erasure
    resource: Resource
    progress: Progress
    ids: frozenset[str]

    @property
    def words(self) -> rules.Words:
        return rules.Words(self.ids, sorted(self.progress.values, key=len, reverse=True))

    @property
    def job_id(self) -> uuid.UUID:
        return self.context.saga.subject

    def go_on(self, phase: str | None = None, *, after: Sequence[Any] = (), done: int = 0, **changes: Any) -> Continue:
        changes |= {"phase": phase or self.progress.phase, "after": list(after), "done": done}
        to = msgspec.structs.replace(self.progress, **changes)
        return Continue(msgspec.structs.asdict(to))


async def _erase(context: StepContext) -> Answer:
    progress = msgspec.convert(context.data, Progress)
    job = await queries.read_erasure(context.connection, context.tenant_id, context.saga.subject)
    if job is None or not progress.ids:
        return Failed("the ids are forgotten; request the erasure again")
    resource = await context.catalog.find(context.connection, context.tenant_id, job.type)
    return await _PHASES[progress.phase](_Work(context, job, resource, progress, frozenset(progress.ids)))


async def _begin(work: _Work) -> Answer:
    return work.go_on("wait", running=sorted(await queries.running_transactions(work.context.connection)))


async def _wait(work: _Work) -> Answer:
    context = work.context
    if not (await queries.running_transactions(context.connection)).isdisjoint(work.progress.running):
        return compensation.wait_longer(context)
    if await queries.is_older_work_open(context.connection, context.tenant_id, work.job_id):
        return compensation.wait_longer(context)
    return work.go_on("delete")


async def _delete(work: _Work) -> Answer:
    """The records become tombstones, as by an import."""
    context, resource, connection, tenant_id = (
        work.context,
        work.resource,
        work.context.connection,
        work.context.tenant_id,
    )
    destinations = await processing_queries.pending_destinations(connection, tenant_id, reach_of(resource))
    scope = (tenant_id, resource.type_id, work.progress.ids, work.job_id)
    older = {record.record_id: record for record in await queries.older_records(connection, *scope, destinations)}
    found = [older.get(record_id) for record_id in work.progress.ids]
    places = [place for place, record in enumerate(found) if record is not None and not record.deleted]
    pieces = [msgspec.json.encode({"id": work.progress.ids[place], "deleted": True}) for place in places]
    items = Items(resource, pieces, last_wins=False, max_item_bytes=context.settings.max_item_bytes, indexes=places)
    await upsert.write(connection, tenant_id, work.job_id, items, atomic=False, dry_run=False)
    decided = {outcome.index: outcome for outcome in items.outcomes}
    outcomes = [decided.get(place) or _leave(place, record) for place, record in enumerate(found)]
    booked = await book(
        connection,
        tenant_id,
        resource.type_id,
        work.job_id,
        work.job.request_id,
        outcomes,
        [b""] * len(outcomes),
        items.versions,
        destination_ids=destinations,
        chunk_size=context.settings.chunk_size,
        dry_run=False,
    )
    counted = await processing_queries.count_items(
        connection, tenant_id, work.job_id, booked.summary, outcomes_wire.as_json(booked.results)
    )
    if not counted:
        raise RuntimeError(f"job {work.job_id} takes no more items")
    for destination_id in destinations if booked.has_deliveries else ():
        context.after_commit.append(partial(context.serve, tenant_id, destination_id))
    return work.go_on("deliver")


async def _deliver(work: _Work) -> Answer:
    context, scope = work.context, (work.context.tenant_id, work.resource.type_id, work.progress.ids)
    if await queries.is_delivery_open(context.connection, *scope):
        return compensation.wait_longer(context)
    await queries.erase_calls(context.connection, *scope, work.job_id)
    await queries.close_dead_letters(context.connection, *scope, work.job_id, note=_NOTE, actor=context.saga.actor)
    return work.go_on("values")


async def _values(work: _Work) -> Answer:
    start, resource = work.progress.done, work.resource
    ids = work.progress.ids[start : start + _RECORDS]
    scope = (work.context.connection, work.context.tenant_id, resource.type_id)
    past = await history.walk_back(*scope, ids, [1] * len(ids))
    made = [one.stored for versions in past.values() for one in versions if one.job_id <= work.job_id]
    found = rules.identifying_values(resource, (documents.read(stored.document) for stored in made))
    values = sorted(found.union(work.progress.values))
    if start + _RECORDS < len(work.progress.ids):
        return work.go_on(done=start + _RECORDS, values=values)
    return work.go_on("outcomes", after=(queries.FIRST, -1), values=values)


async def _outcomes(work: _Work) -> Answer:
    connection, tenant_id = work.context.connection, work.context.tenant_id
    job_id, index = work.progress.after
    page = await queries.page_of_outcomes(
        connection, tenant_id, work.job.type, work.job_id, after_job=uuid.UUID(job_id), after_index=index
    )
    for chunk in page:
        clean = rules.clean_outcomes(chunk.outcomes, chunk.sources, work.ids, work.progress.values)
        if clean is not None:
            await queries.rewrite_outcomes(connection, tenant_id, chunk.job_id, chunk.first_index, *clean)
    return (
        work.go_on(after=(str(page[-1].job_id), page[-1].first_index)) if page else work.go_on("deliveries", after=(0,))
    )


async def _deliveries(work: _Work) -> Answer:
    (after,) = work.progress.after
    scope = (work.context.tenant_id, work.resource.type_id, work.progress.ids, work.job_id)
    last = await queries.erase_deliveries(work.context.connection, *scope, after=after)
    return work.go_on("messages", after=(0,)) if last is None else work.go_on(after=(last,))


async def _messages(work: _Work) -> Answer:
    (after,) = work.progress.after
    page = await queries.page_of_messages(work.context.connection, work.context.tenant_id, after)
    words = work.words.found_in(message.attempts for message in page)
    for message in page:
        clean = None if message.body is None else rules.clean_event(message.body, work.job.type, work.ids)
        attempts = words.clean(message.attempts)
        if clean is not None:
            attempts = [attempt | {"detail": rules.NOTE} for attempt in attempts]
        if clean is not None or attempts != message.attempts:
            scope = (work.context.tenant_id, message.message_id)
            await queries.rewrite_message(work.context.connection, *scope, clean, attempts)
    return work.go_on(after=(page[-1].message_id,)) if page else work.go_on("answers", after=("", ""))


async def _answers(work: _Work) -> Answer:
    """An answer that names one of them is dropped: its key is refused as expired then, and nothing is run again."""
    connection, tenant_id = work.context.connection, work.context.tenant_id
    route, key = work.progress.after
    page = await queries.page_of_answers(connection, tenant_id, work.job_id, after_route=route, after_key=key)
    for answer in page:
        if rules.names(answer.answer, work.ids):
            await queries.drop_answer(connection, tenant_id, answer.route, answer.key)
    return work.go_on(after=(page[-1].route, page[-1].key)) if page else work.go_on("texts", after=(0, None))


async def _texts(work: _Work) -> Answer:
    """What others wrote may repeat what they were sent."""
    connection, tenant_id = work.context.connection, work.context.tenant_id
    table, after = work.progress.after
    first, read, rewrite = queries.TEXTS[table]
    page = await read(connection, tenant_id, after or first)
    words = work.words.found_in(row.texts for row in page)
    for row in page:
        if (clean := words.clean(row.texts)) != row.texts:
            await rewrite(connection, tenant_id, row.key, clean)
    if page:
        return work.go_on(after=(table, page[-1].key))
    return work.go_on(after=(table + 1, None)) if table + 1 < len(queries.TEXTS) else work.go_on("audit", after=(0,))


async def _audit(work: _Work) -> Answer:
    (after,) = work.progress.after
    connection, tenant_id = work.context.connection, work.context.tenant_id
    page = await queries.page_of_audit(connection, tenant_id, after)
    words = work.words.found_in(row.detail for row in page)
    for row in page:
        clean = words.clean(row.detail)
        kind, _, name = row.subject.partition(":")
        subject = f"{kind}:{rules.NOTE}" if name in work.ids else row.subject
        if clean != row.detail or subject != row.subject:
            await queries.rewrite_audit(connection, tenant_id, row.audit_id, subject, outcomes_wire.as_json(clean))
    return work.go_on(after=(page[-1].audit_id,)) if page else work.go_on("records")


async def _records(work: _Work) -> Answer:
    """Versions, records and what destinations hold; what a later job brought stays."""
    context, start = work.context, work.progress.done
    ids = work.progress.ids[start : start + _RECORDS]
    scope = (context.connection, context.tenant_id, work.resource.type_id)
    held = await queries.hold_records(*scope, ids)
    # Undos that were requested later may have found them meanwhile; from here on there is nothing left to find.
    closed = (context.tenant_id, work.resource.type_id, ids, work.job_id)
    await queries.close_dead_letters(context.connection, *closed, note=_NOTE, actor=context.saga.actor)
    past = await history.walk_back(*scope, [record.record_id for record in held], [1] * len(held))
    gone = [record.record_id for record in held if record.deleted and record.job_id <= work.job_id]
    later = [record.record_id for record in held if record.record_id not in set(gone)]
    ends: list[Place] = []
    begins: list[Place] = []
    for record in held:
        chain = [(made.job_id, made.item_index) for made in past.get(record.record_id, ())]
        if (at := _find_end(chain, work.job_id, record)) is not None:
            ends.append(chain[at])
            begins += chain[at - 1 : at] if at else []
    await forget_before(context.connection, context.tenant_id, begins)
    jobs = await remove_versions(context.connection, context.tenant_id, ends)
    await history.note_removals(context.connection, context.tenant_id, sorted(jobs), False)
    await queries.remove_records(*scope, gone)
    await queries.renew_records(*scope, later)
    hashes = [bytes.fromhex(one) for one in work.progress.hashes[start : start + _RECORDS]]
    await queries.note_erased(*scope, hashes, work.job_id)
    if start + _RECORDS < len(work.progress.ids):
        return work.go_on(done=start + _RECORDS)
    return work.go_on("snapshots")


async def _snapshots(work: _Work) -> Answer:
    """What is kept for the time in which PostgreSQL is away; the rows are gone, so nothing of them is kept anew."""
    if work.context.redis is not None:
        try:
            await snapshots.forget(work.context.redis, work.context.tenant_id)
        except (RedisError, OSError):
            return compensation.wait_longer(work.context)
    await compensation.end(work.context, work.job_id)
    return Done({}, audit_detail={"records": len(work.progress.ids)})


def _leave(place: int, record: Older | None) -> ItemOutcome:
    """A tombstone that was not archived is delivered as it is; nothing is to be done for others."""
    if record is None:
        return ItemOutcome(place, None, ItemStatus.OK, Result.UNCHANGED)
    return ItemOutcome(place, record.record_id, ItemStatus.OK, Result.DELETED, record.version)


def _find_end(chain: Sequence[Place], job_id: uuid.UUID, record: Held) -> int | None:
    """The newest of a record's versions that is erased with all before it: the tombstone that was made for that or,
    where there was one already, what older jobs made."""
    own = next((at for at, place in enumerate(chain) if place[0] == job_id), None)
    if own is not None or not (record.deleted or record.job_id > job_id):
        return own
    return next((at for at, place in enumerate(chain) if place[0] < job_id), None)


_PHASES: Final[dict[str, Callable[[_Work], Awaitable[Answer]]]] = {
    "begin": _begin,
    "wait": _wait,
    "delete": _delete,
    "deliver": _deliver,
    "values": _values,
    "outcomes": _outcomes,
    "deliveries": _deliveries,
    "messages": _messages,
    "answers": _answers,
    "texts": _texts,
    "audit": _audit,
    "records": _records,
    "snapshots": _snapshots,
}


async def _fail(context: StepContext) -> Answer:
    await compensation.fail(context, context.saga.subject)
    return Done({})


ERASURE: Final = Workflow("erase", (Step("erase", _erase, _fail),))
"""The subject of its sagas is the job; what was erased before a failure remains so."""
