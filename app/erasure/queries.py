"""The queries of erasing records, typed. Each is for the caller's transaction."""

import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from app.kit.postgres.database import Connection
from app.kit.postgres.query import Json, Query, query


class Erasure(msgspec.Struct, frozen=True):
    """The job that erases."""

    type: str
    request_id: str


class Erased(msgspec.Struct, frozen=True):
    erased_at: datetime
    job_id: uuid.UUID


class ChunkOutcomes(msgspec.Struct, frozen=True):
    job_id: uuid.UUID
    first_index: int
    outcomes: bytes
    sources: bytes | None


class Message(msgspec.Struct, frozen=True):
    message_id: int
    attempts: Json[list[dict[str, Any]]]
    body: str | None
    """Of an event that names records."""


class Answer(msgspec.Struct, frozen=True):
    route: str
    key: str
    answer: bytes


class AuditRow(msgspec.Struct, frozen=True):
    audit_id: int
    subject: str
    detail: Json[dict[str, Any]]


class Older(msgspec.Struct, frozen=True):
    record_id: str
    version: int
    deleted: bool


class Texts(msgspec.Struct, frozen=True):
    """What a row says that may repeat what was erased."""

    key: str
    """Of the row, as JSON."""
    texts: Json[Any] | None


class Held(msgspec.Struct, frozen=True):
    """A record that is locked, and the job that made its version."""

    record_id: str
    job_id: uuid.UUID
    version: int
    deleted: bool


read_key = Query[[int], bytes | None]("read_erasure_key")
add_key = Query[[int, bytes], None]("add_erasure_key")
find_erased = Query[[int, int, bytes], Erased | None]("find_erased")
"""(tenant_id, type_id, id_hash)"""


@query
async def insert_erasure(
    connection: Connection, tenant_id: int, job_id: uuid.UUID, type: str, request_id: str, key_id: str, items: int
) -> None: ...


read_erasure = Query[[int, uuid.UUID], Erasure | None]("read_erasure")
running_transactions = Query[[], set[str]]("running_transactions")
is_older_work_open = Query[[int, uuid.UUID], bool]("is_older_work_open")
older_records = Query[[int, int, Sequence[str], uuid.UUID, Sequence[int]], list[Older]]("older_records")
"""(tenant_id, type_id, record_ids, job_id, destination_ids)"""
is_delivery_open = Query[[int, int, Sequence[str]], bool]("is_delivery_open")
"""(tenant_id, type_id, record_ids)"""


@query
async def close_dead_letters(
    connection: Connection, tenant_id: int, type_id: int, ids: Sequence[str], job_id: uuid.UUID, note: str, actor: str
) -> None: ...


@query
async def erase_calls(
    connection: Connection, tenant_id: int, type_id: int, ids: Sequence[str], job_id: uuid.UUID
) -> None: ...


@query
async def page_of_outcomes(
    connection: Connection, tenant_id: int, type: str, job_id: uuid.UUID, after_job: uuid.UUID, after_index: int
) -> list[ChunkOutcomes]: ...


rewrite_outcomes = Query[[int, uuid.UUID, int, bytes, bytes | None], None]("rewrite_erased_outcomes")
"""(tenant_id, job_id, first_index, outcomes, sources)"""


@query
async def erase_deliveries(
    connection: Connection, tenant_id: int, type_id: int, ids: Sequence[str], job_id: uuid.UUID, after: int
) -> int | None:
    """Of the next ones after one of them; the last that was looked at, `None`: there are no more."""


page_of_messages = Query[[int, int], list[Message]]("page_of_messages")
"""(tenant_id, after)"""
rewrite_message = Query[[int, int, str | None, Json[list[dict[str, Any]]]], None]("rewrite_message")
"""(tenant_id, message_id, body, attempts) `None`: the body stays."""


@query
async def page_of_answers(
    connection: Connection, tenant_id: int, job_id: uuid.UUID, after_route: str, after_key: str
) -> list[Answer]: ...


drop_answer = Query[[int, str, str], None]("drop_answer")
page_of_audit = Query[[int, int], list[AuditRow]]("page_of_audit")
"""(tenant_id, after)"""
rewrite_audit = Query[[int, int, str, str], None]("rewrite_audit")
"""(tenant_id, audit_id, subject, detail)"""
_Page = Query[[int, str], list[Texts]]
_Rewrite = Query[[int, str, Json[Any]], None]
FIRST: Final = uuid.UUID(int=0)
TEXTS: Final = (
    ('[0, "", 0]', _Page("circuit_texts"), _Rewrite("rewrite_circuit_texts")),
    ("[0]", _Page("destination_texts"), _Rewrite("rewrite_destination_texts")),
    ("[0, 0, 0]", _Page("call_texts"), _Rewrite("rewrite_call_texts")),
    ("[0]", _Page("dead_letter_texts"), _Rewrite("rewrite_dead_letter_texts")),
    ("[0]", _Page("delivery_texts"), _Rewrite("rewrite_delivery_texts")),
    ('[0, 0, ""]', _Page("sync_texts"), _Rewrite("rewrite_sync_texts")),
    (f'["{FIRST}"]', _Page("saga_texts"), _Rewrite("rewrite_saga_texts")),
    (f'["{FIRST}"]', _Page("job_texts"), _Rewrite("rewrite_job_texts")),
)
"""By table: a key before all others, reads of a page (tenant_id, after), rewrites of a row (tenant_id, key, texts)."""
hold_records = Query[[int, int, Sequence[str]], list[Held]]("hold_records")
remove_records = Query[[int, int, Sequence[str]], None]("remove_records")
renew_records = Query[[int, int, Sequence[str]], None]("renew_records")


@query
async def note_erased(
    connection: Connection, tenant_id: int, type_id: int, hashes: Sequence[bytes], job_id: uuid.UUID
) -> None: ...
