"""Bugs on purpose: `python -m tests.chaos.planted BUG -- worker` is `tranche worker` with one promise broken.

Each stands for a mistake that one could well make, and turns some seeded round red (`python -m tests.chaos bugs`):
what a checker cannot catch, it does not check. Nothing of this is in the product: its functions and statements are
exchanged in the process that is started here.
"""

from __future__ import annotations

import inspect
import os
import random
import sys
from collections.abc import Callable, MutableMapping
from typing import Any, Final, cast

import msgspec

VARIABLE: Final = "CHAOS_BUG"
"""Passed on to the processes that a server forks or spawns."""


class Bug(msgspec.Struct, frozen=True):
    """`wants`: faults or actions of a plan without which it cannot show."""

    meaning: str
    plant: Callable[[], None]
    wants: frozenset[str] = frozenset()


BUGS: Final[dict[str, Bug]] = {}


def bug(*wants: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Register a function as the bug of its name; its docstring is what goes wrong."""

    def register(plant: Callable[[], None]) -> Callable[[], None]:
        BUGS[plant.__name__] = Bug((plant.__doc__ or "").strip(), plant, frozenset(wants))
        return plant

    return register


def alter(name: str, before: str, after: str) -> None:
    """Change a named statement; one that is not there any more is an error, or the bug would be none."""
    from app.kit.postgres.sql import QUERIES

    statements = cast(MutableMapping[str, str], QUERIES)
    if before not in statements[name]:
        raise SystemExit(f"the statement {name} has no {before!r} any more: mend tests/chaos/planted.py")
    statements[name] = statements[name].replace(before, after)


def put(owner: Any, name: str, replacement: Any) -> Any:
    """Exchange an attribute that must exist, by one that can be called as it is; returns the one before."""
    before = getattr(owner, name)
    asked = list(inspect.signature(before).parameters.values()) if callable(before) else []
    if asked and not any(p.kind is p.VAR_POSITIONAL for p in asked):
        places = [p for p in asked if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        named = {p.name: None for p in asked if p.kind is p.KEYWORD_ONLY}
        try:
            inspect.signature(replacement).bind(*places, **named)
        except TypeError as error:
            raise SystemExit(f"{name} is called otherwise now, {error}: mend tests/chaos/planted.py") from error
    setattr(owner, name, replacement)
    return before


def hear(change: Callable[[Any], Any]) -> None:
    """Let workers misunderstand what a CRM answers."""
    from jobs.delivery.guarded_client import GuardedClient

    async def call(self: Any, *words: Any, **more: Any) -> Any:
        return change(await original(self, *words, **more))

    original = put(GuardedClient, "call", call)


def stand(change: Callable[..., Any]) -> None:
    """Let workers misread a record, and what a destination has of it."""
    from app.deliveries import record_states

    async def misread(connection: Any, *place: Any) -> dict[str, Any]:
        *whose, ids = place
        found = await read(connection, *whose, ids)
        return {key: change(record, *whose) for key, record in found.items()}

    read = put(record_states, "records_to_send", misread)


# keys and answers


@bug("repeat")
def key_forgotten() -> None:
    """The key of an import is now and then not written with it: who asks again is served anew."""
    from app.imports import queries as import_queries

    async def forgetful(connection: Any, record: Any, summary: Any) -> None:
        if random.random() < 0.5:
            record = msgspec.structs.replace(record, key=f"{record.key} forgotten")
        await write(connection, record, summary)

    write = put(import_queries, "insert_import", forgetful)


@bug("reuse_key")
def fingerprint_ignored() -> None:
    """Another body under a known key gets the first one's answer."""
    from app.imports import service as import_service

    put(import_service, "fingerprint", lambda *_: b"same")


@bug("repeat")
def answer_rebuilt() -> None:
    """A repeated request is answered by what would be said today, not by the stored bytes."""
    from app.imports import service as import_service

    def rebuild(packed: bytes) -> bytes:
        told: dict[str, Any] = msgspec.json.decode(unpack(packed))
        told["effects"] = dict.fromkeys(told.get("effects", {}), "ok")
        return msgspec.json.encode(told)

    unpack = put(import_service, "unpack", rebuild)


# records and their history


@bug("expect_version")
def if_version_ignored() -> None:
    """A change that expects another version is made all the same."""
    alter("upsert_records", "(excluded.prev_item_index = r.version) IS NOT FALSE", "true")


@bug("source_version")
def source_version_ignored() -> None:
    """An older change of the sender overwrites a newer one."""
    alter("upsert_records", "(excluded.source_version >= r.source_version) IS NOT FALSE", "true")


@bug()
def version_skipped() -> None:
    """A version is left out now and then."""
    alter("upsert_records", "version = r.version + 1,", "version = r.version + 1 + (random() < 0.1)::int,")


@bug("atomic_poisoned")
def atomic_in_part() -> None:
    """An atomic batch with a bad item keeps the good ones."""
    from app.imports import upsert

    async def write_anyway(connection: Any, tenant_id: int, job_id: Any, items: Any, **options: Any) -> None:
        await write(connection, tenant_id, job_id, items, **(options | {"atomic": False}))

    write = put(upsert, "write", write_anyway)


@bug("large")
def chunk_dropped() -> None:
    """A chunk whose locks were not to be had is taken for done. (Here some are not to be had for no reason.)"""
    import asyncpg

    from app.imports import processing_queries
    from jobs.imports import steps

    async def apply(self: Any, chunk: Any, undecided: Any) -> None:
        if random.random() < 0.3:
            raise asyncpg.LockNotAvailableError("as if somebody held these contacts")
        await original(self, chunk, undecided)

    async def drop(self: Any, error: Exception) -> bool:
        if self._claimed is not None:
            first = self._claimed[0]
            await processing_queries.drop_chunks(self._connection, *self._job, first, first)
        return False

    original = put(steps.Unit, "_apply", apply)
    put(steps.Unit, "_postpone", drop)


@bug("cancel")
def cancel_takes_back() -> None:
    """Canceling deletes what was applied before."""
    from app.imports.cancel import service as cancel_service

    async def cancel(database: Any, tenant_id: int, job_id: Any, *, actor: str) -> None:
        await original(database, tenant_id, job_id, actor=actor)
        async with database.connection() as connection:
            gone = "DELETE FROM record_versions WHERE tenant_id = $1 AND job_id = $2"
            await connection.execute(gone, tenant_id, job_id)

    original = put(cancel_service, "cancel", cancel)


@bug("large")
def destination_forgotten() -> None:
    """A chunk of a large import is owed to the first destination alone."""
    from app.imports import processing_queries as import_processing_queries

    async def first(connection: Any, tenant_id: int, reach: Any) -> list[int]:
        return list((await original(connection, tenant_id, reach))[:1])

    original = put(import_processing_queries, "pending_destinations", first)


# delivery


@bug("accept_then_drop", "half_close", "lost_answers")
def resent_unread() -> None:
    """What may have been sent is sent again, whatever the CRM says of it when it is looked for."""
    from jobs.crm.port import ReadBack, Seen

    def blind(answer: Any) -> Any:
        if isinstance(answer, ReadBack) and answer.seen is not None:
            return msgspec.structs.replace(answer, seen=dict.fromkeys(answer.seen, Seen.ABSENT))
        return answer

    hear(blind)


@bug("accept_then_drop", "half_close", "lost_answers")
def doubt_forgotten() -> None:
    """What another delivery of the contact may have sent is sent without looking."""
    stand(lambda standing, *_: msgspec.structs.replace(standing, doubtful=False))


@bug("slow_before")
def absent_once() -> None:
    """Not found is taken for proof at once that it was never sent: the two looks are one."""
    os.environ["TRANCHE_RECONCILE_GRACE"] = "0"


@bug()
def overtaken_sent() -> None:
    """What a later delivery brought already is sent once more."""
    stand(lambda standing, *_: msgspec.structs.replace(standing, synced_version=0))


@bug()
def busy_ignored() -> None:
    """Two deliveries with the same contact are sent at the same time."""
    busy = "((d.type_id, k.record_id) IN (SELECT b.type_id, b.record_id FROM busy b)) IS TRUE"
    alter("claim_deliveries", busy, "false")


@bug()
def stale_contact() -> None:
    """A contact is sent as it was when this worker first read it."""
    known: dict[tuple[Any, ...], Any] = {}

    def remember(standing: Any, *place: int) -> Any:
        first = known.setdefault((*place, standing.record_id), standing)
        return msgspec.structs.replace(standing, attributes=first.attributes, fields=first.fields)

    stand(remember)


@bug("clear_attributes")
def clearing_forgotten() -> None:
    """A CRM is not told of attributes that are gone."""
    alter("records_to_send", "r.cleared,", "NULL AS cleared,")


@bug()
def unnamed_erased() -> None:
    """A field that nobody named is sent as an empty one."""

    def erase(record: Any, *_: int) -> Any:
        unnamed = dict.fromkeys(("first_name", "last_name", "phone", "company", "street", "city", "maker", "size"))
        return msgspec.structs.replace(record, fields=unnamed | record.fields)

    stand(erase)


@bug("undo")
def all_ours() -> None:
    """Every record at a CRM is taken for one that our call made."""
    stand(lambda contact, *_: msgspec.structs.replace(contact, created=True))


@bug("stall")
def token_ignored() -> None:
    """A worker whose lease was lost records its outcomes over those of the one that came after it."""
    alter(
        "record_delivery",
        "AND d.lease_token = $3\n        AND (d.state = 'sending') IS TRUE",
        "AND $3::uuid IS NOT NULL",
    )


@bug("kill_worker", "stall")
def lease_for_ever() -> None:
    """Nobody frees what a dead worker held."""
    from app.deliveries import queries as delivery_queries

    async def none(_: Any) -> int:
        return 0

    put(delivery_queries, "release_lost", none)


@bug("flush_redis", "kill_redis")
def redis_trusted() -> None:
    """Work that no wake-up announces is not looked for."""
    from app.deliveries import queries as delivery_queries

    async def none(_: Any) -> list[Any]:
        return []

    put(delivery_queries, "due_destinations", none)


@bug("down_long")
def breaker_ignored() -> None:
    """A CRM that is down is called on and on."""
    from jobs.breaker.breaker import Breaker
    from jobs.breaker.rules import Permit, Permits

    async def acquire(self: Any, circuits: Any) -> Any:
        return Permits(permits=tuple(Permit(name=c.name, generation=0, token=0, shared=False) for c in circuits))

    put(Breaker, "acquire", acquire)


@bug("neighbour")
def neighbour_heard() -> None:
    """The circuit that tenants share counts calls, whoever makes them."""
    from jobs.breaker.rules import Circuit
    from jobs.delivery import clients

    put(clients, "Circuit", lambda name, _: Circuit(name))


@bug("reject")
def refused_again() -> None:
    """What a CRM refused for good is sent again and again."""
    from app.vocabulary.states import EffectState
    from jobs.crm.port import Reply

    def hopeful(answer: Any) -> Any:
        if not isinstance(answer, Reply):
            return answer
        outcomes = [
            msgspec.structs.replace(o, state=EffectState.RETRY) if o.state is EffectState.FAILED else o
            for o in answer.outcomes
        ]
        return msgspec.structs.replace(answer, outcomes=outcomes)

    hear(hopeful)


@bug("says_no_http")
def no_taken_for_ok() -> None:
    """A 2xx whose body says no, or that the call is queued, is taken for done."""
    from jobs.crm.http import items
    from jobs.crm.http.refusals import Refusals

    put(items.Reader, "read", lambda *_, **__: Refusals())
    put(items, "_ACCEPTED", -1)


@bug("reject")
def letter_forgotten() -> None:
    """What is given up leaves no dead letter."""
    from app.deliveries import queries as delivery_queries

    async def silent(connection: Any, claim: Any, of: str, record: Any) -> Any:
        return await write(connection, claim, of, msgspec.structs.replace(record, dead_letters=[]))

    write = put(delivery_queries, "record_delivery", silent)


@bug()
def counted_twice() -> None:
    """A job's effects are added up wrongly."""
    alter("record_delivery", "ok = e.ok + count_state($4, 'o')", "ok = e.ok + 2 * count_state($4, 'o')")


@bug()
def finished_early() -> None:
    """A job is finished when one destination has all, whatever the other one is still owed."""
    alter("finish_job", "coalesce(sum(x.pending + x.retry + x.unknown), 0) AS open", "0 AS open")


@bug("missing_fields")
def account_blamed_on_items() -> None:
    """What an account lacks is taken for the fault of the contacts: halves of the call are sent until all failed."""
    from jobs.crm.hubspot.answers import HubSpotJudge
    from jobs.crm.salesforce.answers import SalesforceJudge

    for judge in (HubSpotJudge, SalesforceJudge):
        put(judge, "remedy", lambda *_: None)


# several types


@bug()
def any_types_sync() -> None:
    """What a destination has of a record is looked up by its id alone."""
    alter("records_to_send", "AND x.type_id = $3 AND x.record_id", "AND x.record_id")


@bug()
def sent_as_another_type() -> None:
    """All records go to a destination as those of the type that it was first called with."""
    from jobs.delivery.destination_state import DestinationState

    known: dict[Any, Any] = {}

    def adapter(self: Any, _type_id: int, _made_of: object, make: Callable[[], Any]) -> Any:
        if self not in known:
            known[self] = make()
        return known[self]

    put(DestinationState, "adapter", adapter)


@bug("declare")
def declaration_remembered() -> None:
    """Items are checked by the declaration that was first seen, whatever has changed since."""
    from app.imports import service as import_service

    put(import_service, "check_type", lambda *_: None)


@bug()
def any_tenants_type() -> None:
    """A type that another tenant has declared under the same number is taken for this one's."""
    from app.resource_types.catalog import Catalog

    def take(self: Any, _: int, row: Any) -> Any:
        return compile_type(self, 0, row)

    compile_type = put(Catalog, "_compile", take)


@bug()
def any_types_key() -> None:
    """A key that was used for one type is known for the others."""
    from app.imports import api as import_api

    put(import_api, "route_of", lambda _: "POST /v1/contacts:bulk")


@bug()
def all_types_listed() -> None:
    """A list has the records of other types, too."""
    alter("list_records", "AND r.type_id = $2", "AND $2::int IS NOT NULL")


@bug("delete")
def deletion_unsent() -> None:
    """What an item deletes stays at a destination where a user made it."""
    stand(lambda record, *_: msgspec.structs.replace(record, removed=False))


@bug("delete")
def deleted_values_stay() -> None:
    """What a deleted record had is not cleared where there is such a record again."""
    before = "WHEN excluded.deleted THEN coalesce(r.cleared, '{}') || cleared_at("
    alter("upsert_records", before, "WHEN false THEN cleared_at(")


# webhooks


@bug()
def message_believed() -> None:
    """A webhook is done with when it was sent, whatever the receiver says."""
    from app.webhooks.rules import MessageState, Verdict
    from jobs.webhooks import sender

    put(sender, "judge", lambda *_, **__: Verdict(MessageState.OK))


@bug()
def message_renamed() -> None:
    """An event has a new id with every attempt."""
    import uuid

    from jobs.webhooks import sender

    def rename(secrets: Any, _: str, at: Any, body: str) -> Any:
        return sign(secrets, str(uuid.uuid4()), at, body)

    sign = put(sender, "sign", rename)


@bug()
def job_untold() -> None:
    """Nobody is told of a job that a destination's last word ends."""
    alter("finish_job", "WHERE e.finished_at IS NOT NULL", "WHERE false")


@bug("reject")
def letter_untold() -> None:
    """Nobody is told of what is given up."""
    alter("notify_dead_letters", "'item.dead' AS type", "'item.lost' AS type")


# undo and replay


@bug("undo")
def undo_overwrites() -> None:
    """An undo gives a contact its before-image back although somebody changed it since."""
    from app.undo import restore

    put(restore, "_is_own", lambda *_: True)


@bug("undo")
def undo_in_part() -> None:
    """An undo leaves a field as it is now."""
    alter("restore_records", "document = t.document::jsonb,", "document = r.document || t.document::jsonb,")


@bug("undo")
def undo_untold() -> None:
    """What an undo restores is not owed to the destinations."""
    from app.undo import restore as undo_restore

    async def book(*words: Any, **options: Any) -> Any:
        return await write(*words, **(options | {"destination_ids": []}))

    write = put(undo_restore, "book", book)


@bug("undo")
def tombstone_kept() -> None:
    """A contact whose creation was undone is said to be archived at the CRM, but is not."""
    from app.vocabulary.states import EffectState
    from jobs.crm.port import Health, Outcome, Reply
    from jobs.delivery import clients

    async def archive(contacts: Any, _: Any) -> Any:
        done = [Outcome(record_id=c.record_id, state=EffectState.OK, remote_id=c.remote_id) for c in contacts]
        return Reply(outcomes=done, health=Health.WELL)

    def careless(connect: Any) -> Any:
        def connected(**options: Any) -> Any:
            crm = connect(**options)
            put(crm, "archive", archive)
            return crm

        return connected

    for kind, connect in list(clients.ADAPTERS.items()):
        clients.ADAPTERS[kind] = careless(connect)


@bug("reject")
def refused_kept() -> None:
    """What one destination refused stays, though all must take it or none."""
    from app.undo import queries as undo_queries

    async def none(*_: Any, **__: Any) -> None:
        return None

    put(undo_queries, "last_refused", none)


@bug("reject")
def dead_letters_taken_twice() -> None:
    """Who waited for dead letters that another request was just taking takes them once more."""
    alter("lock_dead_letters", "AND l.resolution IS NULL", "")


@bug("reject")
def dead_letters_taken_for_nothing() -> None:
    """Letters that are taken are not sent again."""
    from app.dead_letters import replay

    async def none(*_: Any) -> list[Any]:
        return []

    put(replay, "_pace", none)


def main() -> None:
    name, separator, *words = sys.argv[1:]
    if separator != "--" or name not in BUGS:
        raise SystemExit(f"usage: python -m tests.chaos.planted BUG -- WORDS; bugs: {', '.join(BUGS)}")
    os.environ[VARIABLE] = name
    BUGS[name].plant()
    sys.argv = ["tranche", *words]
    from app.cli.main import main as tranche

    tranche()


if __name__ == "__main__":
    main()
elif __name__ == "__mp_main__" and VARIABLE in os.environ:
    BUGS[os.environ[VARIABLE]].plant()
