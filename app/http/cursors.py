"""Opaque positions in a list: a small versioned JSON in base64url. They say where, never who may read."""

from __future__ import annotations

import base64
import binascii
import uuid
from collections.abc import Mapping
from typing import Annotated, Any, Final, TypeVar
from urllib.parse import urlencode

import msgspec

from app.http.errors import CursorInvalid

VERSION: Final = 1

C = TypeVar("C")

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


class _Below(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A place in a list that runs down a number."""

    version: int
    list: str
    before: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


def encode_letter(before: int) -> str:
    """A place among dead letters."""
    return _write(_Below(VERSION, "dead-letters", before))


def decode_letter(text: str) -> int:
    """
    Raises:
        CursorInvalid: broken, or of another list.
    """
    cursor = _read(text, _Below)
    if (cursor.version, cursor.list) != (VERSION, "dead-letters"):
        raise CursorInvalid()
    return cursor.before


def link_next(scope: Mapping[str, Any], query: dict[str, str], cursor: str | None) -> dict[str, str]:
    """Where the next page is (RFC 8288), which is all that NDJSON and CSV can tell of it."""
    if cursor is None:
        return {}
    return {"Link": f'<{scope["path"]}?{urlencode(query | {"cursor": cursor})}>; rel="next"'}


def _encode(cursor: _Cursor) -> str:
    return _write(cursor)


def _decode(text: str, kind: str) -> _Cursor:
    cursor = _read(text, _Cursor)
    if (cursor.version, cursor.list) != (VERSION, kind):
        raise CursorInvalid()
    return cursor


def _write(cursor: msgspec.Struct) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(cursor)).decode().rstrip("=")


def _read(text: str, kind: type[C]) -> C:
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        return msgspec.json.decode(raw, type=kind)
    except (ValueError, binascii.Error, RecursionError) as error:
        raise CursorInvalid() from error
