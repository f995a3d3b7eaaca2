"""Records and their history as rows that a test can read: fields and attributes apart, one row a version."""

from __future__ import annotations

from typing import Any

import asyncpg
import msgspec

from app.history.versions import read_block
from app.resources import documents
from app.resources.types.contacts import CONTACTS

Row = dict[str, Any]


async def contacts(connection: Any, where: str = "true", *arguments: Any) -> list[Row]:
    """By id."""
    rows = await connection.fetch(
        f"SELECT r.* FROM records r WHERE {where} ORDER BY r.tenant_id, r.record_id", *arguments
    )
    return [_open(dict(row), row["document"], row["cleared"]) for row in rows]


async def history(connection: Any, where: str = "true", *arguments: Any) -> list[Row]:
    """By job and item."""
    chunks = await connection.fetch(
        f"SELECT v.* FROM record_versions v WHERE {where} ORDER BY v.tenant_id, v.job_id, v.first_index", *arguments
    )
    return [row for chunk in chunks for row in _versions(chunk)]


def _versions(chunk: asyncpg.Record) -> list[Row]:
    versions = [version for block in chunk["versions"] for version in read_block(block)]
    assert len(versions) == len(chunk["indexes"])
    return [
        _open(
            {
                "tenant_id": chunk["tenant_id"],
                "job_id": chunk["job_id"],
                "item_index": index,
                "changed_at": chunk["changed_at"],
                "record_id": made.record_id,
                "version": made.version,
                "source_version": made.source_version,
                "deleted": made.deleted,
                "prev_job_id": chunk["prev_job_ids"] and chunk["prev_job_ids"][at],
                "prev_item_index": chunk["prev_item_indexes"] and chunk["prev_item_indexes"][at],
            },
            made.document,
            made.cleared,
        )
        for at, (index, made) in enumerate(zip(chunk["indexes"], versions, strict=True))
    ]


def _open(row: Row, document: Any, cleared: Any) -> Row:
    read = documents.read(document)
    row.pop("document", None)
    return (
        row
        | {name: read.get(name) for name in CONTACTS.names}
        | {
            "record_id": row.pop("record_id"),
            "fields": documents.fields_of(read),
            "attributes": documents.attributes_of(read),
            "names": sorted(read),
            "cleared": None if cleared is None else msgspec.json.decode(cleared),
        }
    )
