"""Files staged, as a request leaves them there, and the work of a worker on them."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

import msgspec
from uuid_utils.compat import uuid7

from app.files.staging_codec import encode_pieces
from app.kit.compression import pack
from app.resources import decoding
from app.resources.decoding import Piece, UnreadablePiece
from app.settings import Settings
from jobs.imports.processing import ImportWorkers
from jobs.imports.steps import Advance
from tests.db.conftest import Desk


def pieces_of(items: Sequence[dict[str, Any] | bytes | UnreadablePiece]) -> list[Piece]:
    return [msgspec.json.encode(item) if isinstance(item, dict) else item for item in items]


async def stage(
    desk: Desk, items: Sequence[dict[str, Any] | bytes | UnreadablePiece], *, chunk: int = 1_000, **options: bool
) -> uuid.UUID:
    """A queued job with these items in chunks of `chunk`."""
    pieces = pieces_of(items)
    job_id = uuid7()
    step = "atomic" if options.get("atomic") else "check"
    async with desk.database.connection() as connection, connection.transaction():
        await connection.execute(
            """INSERT INTO jobs (
                tenant_id, job_id, kind, type, state, root_job_id, request_id, key_id, options, total, succeeded,
                failed,
                retry, step, items
            ) VALUES ($1, $2, 'import', 'contacts', 'queued', $2, 'request', 'key', $3::text::jsonb, 0, 0, 0, 0, $4,
            $5)""",
            desk.tenant_id,
            job_id,
            msgspec.json.encode(options).decode(),
            step,
            len(pieces),
        )
        for first in range(0, len(pieces), chunk):
            part = pieces[first : first + chunk]
            await connection.execute(
                """INSERT INTO staged_chunks (tenant_id, job_id, first_index, item_count, step, id_hashes, rows)
                VALUES ($1, $2, $3, $4, 'apply', (
                    SELECT array_agg(hashtextextended(u.id, 0) ORDER BY u.place)
                    FROM unnest($5::text[]) WITH ORDINALITY u(id, place)
                ), $6)""",
                desk.tenant_id,
                job_id,
                first,
                len(part),
                [_id(piece) for piece in part],
                pack(encode_pieces(part)),
            )
    return job_id


def _id(piece: Piece) -> str | None:
    if isinstance(piece, UnreadablePiece):
        return None
    try:
        found = decoding._decode_id(piece).id
        found.encode()
    except (ValueError, RecursionError):
        return None
    return None if "\0" in found else found


def processor(desk: Desk, settings: Settings | None = None) -> ImportWorkers:
    return ImportWorkers(desk.database, settings or desk.settings, lambda tenant_id, destination_id: None)


async def process(desk: Desk, job_id: uuid.UUID, settings: Settings | None = None) -> None:
    """Work on a job until it needs no more."""
    worker = processor(desk, settings)
    for _ in range(10_000):
        if await worker.advance(desk.tenant_id, job_id) is Advance.DONE:
            return
    raise AssertionError("the job does not end")


async def outcomes(desk: Desk, job_id: uuid.UUID) -> list[dict[str, Any]]:
    """What was decided of a job's items, in order."""
    from app.kit.compression import unpack

    chunks = await desk.rows(
        "SELECT outcomes, item_count FROM job_chunks WHERE job_id = $1 ORDER BY first_index", job_id
    )
    found: list[dict[str, Any]] = []
    for row in chunks:
        part = msgspec.json.decode(unpack(row["outcomes"]))
        assert len(part) == row["item_count"]
        found += part
    return found


async def job(desk: Desk, job_id: uuid.UUID) -> dict[str, Any]:
    (row,) = await desk.rows("SELECT * FROM jobs WHERE job_id = $1", job_id)
    return row
