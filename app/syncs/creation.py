"""Syncs as people ask for them: a job, which workers fill with the records that a destination lacks."""

import uuid
from collections.abc import Callable
from typing import Final

import msgspec
from uuid_utils.compat import uuid7

from app.audit.queries import write_audit
from app.destinations.http_options import HttpOptions
from app.destinations.kinds import options_for, reach_of, reads_back
from app.errors import Conflict, Invalid, NotFound
from app.kit.postgres.database import Connection
from app.resource_types.catalog import Catalog
from app.syncs import queries as rows
from app.syncs.rules import Cursor, Mode
from app.tracing import context
from app.tracing.context import TraceContext

_MOST_COUNTED: Final = 1_000_000
_encode: Final = msgspec.json.Encoder().encode


class SyncRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to send to a destination."""

    mode: Mode = "missing"
    """`missing`: what it has in no version or an older one; `all`: everything again, as after a change of `fields`;
    `verify`: everything is read back, and what differs is named (`drift` of the job)."""
    type: str | None = None
    """Records of this type alone; null: of every type that goes there."""
    repair: bool = False
    """With `verify`: what is missing or different there is sent, and what was removed here is removed there."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What was begun."""

    job_id: uuid.UUID | None
    """`None`: there are no records."""
    records: int
    """That there are of these types; a million may be more. Those that the destination has are not sent."""


async def create(
    connection: Connection,
    tenant_id: int,
    name: str,
    asked: SyncRequest,
    *,
    catalog: Catalog,
    request_id: str,
    trace: TraceContext | None = None,
    actor: str,
    new_id: Callable[[], uuid.UUID] = uuid7,
) -> Asked:
    """Create the job that sends them; workers fill it.

    Raises:
        NotFound: there is no such destination.
        Invalid: no record of the type goes there, or none can be read back.
        Conflict: another sync of the destination is running.
    """
    if asked.repair and asked.mode != "verify":
        raise Invalid("repair: it goes with the mode verify alone; the others send what they find in any case.")
    async with connection.transaction():
        place = await rows.find_destination(connection, tenant_id, name)
        if place is None:
            raise NotFound(f"There is no destination {name!r}.")
        destination_id = place.destination_id
        running = await rows.running(connection, tenant_id, destination_id)
        if running is not None:
            raise Conflict(
                f"A sync of this destination is running: job {running}. Wait until it is finished, or cancel it."
            )
        known = await catalog.all(connection, tenant_id)
        wanted = [known[asked.type]] if asked.type in known else [] if asked.type else list(known.values())
        type_ids = []
        for resource in wanted:
            reach = reach_of(resource)
            if await rows.takes_records(
                connection, tenant_id, destination_id, type=reach.type, named=reach.named, kinds=reach.kinds
            ):
                type_ids.append(resource.type_id)
        if not type_ids:
            what = f"records of the type {asked.type!r}" if asked.type else "records"
            raise Invalid(f"No {what} go to {name!r}: see its `types` (tranche destinations list --json).")
        if asked.mode == "verify":
            readable = {r.type_id for r in wanted if reads_back(place.kind, options_for(r, name, place.options))}
            type_ids = [type_id for type_id in type_ids if type_id in readable]
            if not type_ids:
                remedy = ": give it the option read_path or read" if place.kind == HttpOptions.KIND else ""
                raise Invalid(f"{name!r} cannot be read back{remedy}.")
            # Where none ever went there may be no place for them, and nothing is known of it.
            type_ids = await rows.types_with_records(connection, tenant_id, type_ids)
            await rows.note_verification(connection, tenant_id, destination_id)
        count = await rows.count_records(connection, tenant_id, type_ids, _MOST_COUNTED)
        if not type_ids or (not count and asked.mode != "verify"):
            return Asked(job_id=None, records=0)
        job_id = new_id()
        cursor = Cursor(destination_id=destination_id, mode=asked.mode, type_ids=sorted(type_ids), repair=asked.repair)
        await rows.insert(
            connection,
            tenant_id,
            job_id,
            destination_id,
            type=asked.type or None,
            request_id=request_id,
            trace_context=context.keep(trace),
            key_id=actor,
            options=_encode({"mode": asked.mode, "destination": name, "repair": asked.repair}).decode(),
            cursor=_encode(cursor).decode(),
        )
        detail = {"mode": asked.mode, "type": asked.type, "repair": asked.repair, "job_id": str(job_id)}
        await write_audit(connection, tenant_id, actor, "destination.sync", f"destination:{name}", detail)
    return Asked(job_id=job_id, records=count)
