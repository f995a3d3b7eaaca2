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

NextCursor = Annotated[str | None, msgspec.Meta(description="Opaque; null on the last page.")]
"""What a page says of the one after it."""

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
    return _decode(text, "jobs", _Cursor).job_id


def encode_item(job_id: uuid.UUID, index: int) -> str:
    """A place among the items of a job: the index that comes next."""
    return _encode(_Cursor(VERSION, "items", job_id, index))


def decode_item(text: str, job_id: uuid.UUID) -> int:
    """
    Raises:
        CursorInvalid: broken, or of another list or job.
    """
    cursor = _decode(text, "items", _Cursor)
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
    cursor = _decode(text, "history", _Cursor)
    return cursor.job_id, cursor.index


class _Number(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    version: int
    list: str
    number: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


def encode_number(number: int, kind: str) -> str:
    """A place in a list whose entries are numbered; `kind` names the list."""
    return _encode(_Number(VERSION, kind, number))


def decode_number(text: str, kind: str) -> int:
    """
    Raises:
        CursorInvalid: broken, or of another list.
    """
    return _decode(text, kind, _Number).number


_Shape = TypeVar("_Shape", _Cursor, _Number)


def link_next(scope: Mapping[str, Any], query: dict[str, str], cursor: str | None) -> dict[str, str]:
    """Where the next page is (RFC 8288), which is all that NDJSON and CSV can tell of it."""
    if cursor is None:
        return {}
    return {"Link": f'<{scope["path"]}?{urlencode(query | {"cursor": cursor})}>; rel="next"'}


def _encode(cursor: _Cursor | _Number) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(cursor)).decode().rstrip("=")


def _decode(text: str, kind: str, shape: type[_Shape]) -> _Shape:
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        cursor = msgspec.json.decode(raw, type=shape)
    except (ValueError, binascii.Error, RecursionError) as error:
        raise CursorInvalid() from error
    if (cursor.version, cursor.list) != (VERSION, kind):
        raise CursorInvalid()
    return cursor
