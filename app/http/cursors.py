"""Opaque positions in a list: a small versioned JSON in base64url. They say where, never who may read."""

from __future__ import annotations

import base64
import binascii
import uuid
from collections.abc import Mapping
from typing import Annotated, Any, Final
from urllib.parse import urlencode

import msgspec

from app.http.errors import CursorInvalid

VERSION: Final = 1

_Index = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]


class _Cursor(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    version: int
    list: str
    """Which list it belongs to, so that one of another list is refused."""
    job_id: uuid.UUID
    index: _Index


def encode_job(before: uuid.UUID) -> str:
    """A place among jobs."""
    return _encode(_Cursor(VERSION, "jobs", before, 0))


def decode_job(text: str) -> uuid.UUID:
    """
    Raises:
        CursorInvalid: broken, or of another list.
    """
    return _decode(text, "jobs").job_id


def encode_item(job_id: uuid.UUID, index: int) -> str:
    """A place among the items of a job: the index that comes next."""
    return _encode(_Cursor(VERSION, "items", job_id, index))


def decode_item(text: str, job_id: uuid.UUID) -> int:
    """
    Raises:
        CursorInvalid: broken, or of another list or job.
    """
    cursor = _decode(text, "items")
    if cursor.job_id != job_id:
        raise CursorInvalid()
    return cursor.index


def encode_version(job_id: uuid.UUID, index: int) -> str:
    """A place in a contact's history: the last version that was shown, by the item that made it."""
    return _encode(_Cursor(VERSION, "history", job_id, index))


def decode_version(text: str) -> tuple[uuid.UUID, int]:
    """
    Raises:
        CursorInvalid: broken, or of another list.
    """
    cursor = _decode(text, "history")
    return cursor.job_id, cursor.index


def encode_audit(before: int) -> str:
    """A place in the audit log, which has numbers larger than an index."""
    return _encode(_Cursor(VERSION, "audit", uuid.UUID(int=before), 0))


def decode_audit(text: str) -> int:
    """
    Raises:
        CursorInvalid: broken, or of another list.
    """
    before = _decode(text, "audit").job_id.int
    if before >= 2**63:
        raise CursorInvalid()
    return before


def link_next(scope: Mapping[str, Any], query: dict[str, str], cursor: str | None) -> dict[str, str]:
    """Where the next page is (RFC 8288), which is all that NDJSON and CSV can tell of it."""
    if cursor is None:
        return {}
    return {"Link": f'<{scope["path"]}?{urlencode(query | {"cursor": cursor})}>; rel="next"'}


def _encode(cursor: _Cursor) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(cursor)).decode().rstrip("=")


def _decode(text: str, kind: str) -> _Cursor:
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        cursor = msgspec.json.decode(raw, type=_Cursor)
    except (ValueError, binascii.Error, RecursionError) as error:
        raise CursorInvalid() from error
    if (cursor.version, cursor.list) != (VERSION, kind):
        raise CursorInvalid()
    return cursor
