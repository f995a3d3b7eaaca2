"""The use case of erasing records: it is asked for here, and a saga of the workers does it (`jobs.sagas.erasure`)."""

import os
import uuid
from collections.abc import Callable, Sequence
from typing import Final

from app.audit.queries import write_audit
from app.erasure import queries, rules
from app.errors import Invalid, RecordErased
from app.kit.encryption import ERASURE_KEY, Vault
from app.kit.postgres.database import Connection, Database
from app.resources.declaration import Resource
from app.sagas import queries as saga_queries

WORKFLOW: Final = "erase"
_MOST_ID: Final = 255
_MOST_REASON: Final = 1_000
_LONGEST_CHARACTER: Final = 12
"""Bytes of one in JSON that is written as two escapes."""


def check(ids: Sequence[str], reason: str, *, most: int) -> None:
    """Raises `Invalid`: there are none or too many, one cannot be an id or is repeated, or there is no reason."""
    if not 1 <= len(ids) <= most:
        raise Invalid(f"Send 1 to {most:,} ids; these are {len(ids):,}.")
    seen: dict[str, int] = {}
    for place, record_id in enumerate(ids):
        if not 1 <= len(record_id) <= _MOST_ID or "\0" in record_id:
            raise Invalid(f"ids[{place}] cannot be an id: it has 1 to {_MOST_ID} characters, none of them NUL.")
        if record_id in seen:
            raise Invalid(f"ids[{place}] repeats ids[{seen[record_id]}]; send each id once.")
        seen[record_id] = place
    if not reason.strip() or len(reason) > _MOST_REASON or "\0" in reason:
        raise Invalid(f"Give a reason of at most {_MOST_REASON:,} characters; it goes to the audit log.")


def most_bytes(most: int) -> int:
    """Of a request with so many ids."""
    return _LONGEST_CHARACTER * (most * (_MOST_ID + 1) + _MOST_REASON)


async def erase(
    database: Database,
    vault: Vault,
    tenant_id: int,
    resource: Resource,
    ids: Sequence[str],
    reason: str,
    *,
    key_id: str,
    request_id: str,
    new_id: Callable[[], uuid.UUID],
) -> uuid.UUID:
    """Have records erased, whether there are such or not; the job that does it."""
    async with database.connection() as connection, connection.transaction():
        key = await _read_key(connection, vault, tenant_id)
        if key is None:
            sealed = vault.seal(os.urandom(32).hex(), tenant_id=tenant_id, name="", kind=ERASURE_KEY, address="")
            await queries.add_key(connection, tenant_id, sealed)
            key = await _read_key(connection, vault, tenant_id)
        assert key is not None
        job_id = new_id()
        await queries.insert_erasure(
            connection, tenant_id, job_id, resource.name, request_id=request_id, key_id=key_id, items=len(ids)
        )
        hashes = [rules.id_hash(key, resource.type_id, record_id).hex() for record_id in ids]
        data = {"ids": list(ids), "hashes": hashes}
        await saga_queries.begin(
            connection, tenant_id, new_id(), workflow=WORKFLOW, subject=job_id, actor=key_id, data=data
        )
        detail = {"type": resource.name, "records": len(ids), "reason": reason}
        await write_audit(connection, tenant_id, key_id, "records.erase", f"job:{job_id}", detail)
    return job_id


async def check_erased(
    connection: Connection, vault: Vault | None, tenant_id: int, resource: Resource, record_id: str
) -> None:
    """Raises `RecordErased`: there is no such record, because it was erased."""
    key = None if vault is None else await _read_key(connection, vault, tenant_id)
    if key is None:
        return
    hashed = rules.id_hash(key, resource.type_id, record_id)
    if (found := await queries.find_erased(connection, tenant_id, resource.type_id, hashed)) is not None:
        raise RecordErased(
            f"This {resource.singular} was erased on {found.erased_at:%Y-%m-%d at %H:%M:%S} UTC by job {found.job_id}: "
            "nothing that was known of it is kept. An import of this id makes a new record."
        )


async def _read_key(connection: Connection, vault: Vault, tenant_id: int) -> bytes | None:
    sealed = await queries.read_key(connection, tenant_id)
    if sealed is None:
        return None
    return bytes.fromhex(vault.open(sealed, tenant_id=tenant_id, name="", kind=ERASURE_KEY, address=""))
