"""How the versions that a chunk of a job made are kept: in blocks, each packed on its own.

A block is the JSON of an array of versions, packed with zstd (`app.kit.compression`), or as it is where the database
made it, in a migration. Versions of one chunk resemble each other, so packed together they take a tenth of the room;
blocks keep it cheap to read one of them.
"""

import uuid
from collections.abc import Sequence
from operator import attrgetter
from typing import Any, Final
from zlib import crc32

import msgspec

from app.kit.compression import pack, unpack

BLOCK: Final = 128
"""Versions of a block; queries.sql counts by it as well."""

NOTHING: Final = msgspec.Raw(b"null")


class StoredVersion(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A record as an item left it."""

    record_id: str
    version: int
    source_version: int | None
    deleted: bool
    document: msgspec.Raw
    """As `app.resources.documents` says."""
    cleared: msgspec.Raw
    """See `app.resources.field_states`; null for nothing."""


class NewVersion(msgspec.Struct, frozen=True, gc=False):
    """A version that the item `index` of a job made."""

    index: int
    stored: StoredVersion
    prev_job_id: str | None = None
    """Who made the version before; `None`: there was none."""
    prev_item_index: int | None = None


class _Searched(msgspec.Struct, frozen=True, gc=False):
    """The fields of a document that lists search by."""

    email: Any = None
    domain: Any = None


SEARCHED: Final = _Searched.__struct_fields__
_SEEDS: Final = {name: crc32(name.encode()) for name in SEARCHED}

_index: Final = attrgetter("index")
_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(list[StoredVersion]).decode
_decode_searched: Final = msgspec.json.Decoder(_Searched).decode


class Columns(msgspec.Struct, frozen=True, kw_only=True):
    """The versions of a chunk as a row of `record_versions`; all `None`: there are none."""

    version_indexes: str | None = None
    """Of the items, rising, as an array literal."""
    prev_job_ids: str | None = None
    """`None`: no item had a version before."""
    prev_item_indexes: str | None = None
    version_blocks: list[bytes] | None = None
    signatures: str | None = None
    """Of the values that lists search by, as an array literal."""


def columns(versions: Sequence[NewVersion]) -> Columns:
    if not versions:
        return Columns()
    ordered = sorted(versions, key=_index)
    blocks = [[made.stored for made in ordered[at : at + BLOCK]] for at in range(0, len(ordered), BLOCK)]
    jobs: str | None = None
    indexes: str | None = None
    if any(made.prev_job_id is not None for made in ordered):
        jobs = "{" + ",".join([made.prev_job_id or "NULL" for made in ordered]) + "}"
        indexes = _literal([made.prev_item_index for made in ordered])
    return Columns(
        version_indexes=_literal([made.index for made in ordered]),
        prev_job_ids=jobs,
        prev_item_indexes=indexes,
        version_blocks=[pack(_encode(block)) for block in blocks],
        signatures=_literal(_signatures(ordered)),
    )


def signature(name: str, value: str) -> int:
    """31 bits of a value of a field: a chunk whose versions have none like it does not have the value."""
    return crc32(value.encode(), _SEEDS[name]) & 0x7FFFFFFF


def _signatures(versions: Sequence[NewVersion]) -> list[int]:
    found = [_decode_searched(made.stored.document) for made in versions]
    emails = [signature("email", fields.email) for fields in found if isinstance(fields.email, str)]
    return emails + [signature("domain", fields.domain) for fields in found if isinstance(fields.domain, str)]


def _literal(numbers: Sequence[int | None]) -> str:
    return "{" + _encode(numbers)[1:-1].decode() + "}"


def read_block(block: bytes) -> list[StoredVersion]:
    return _decode(block if block.startswith(b"[") else unpack(block))


Place = tuple[uuid.UUID, int]
"""A job and the item in it that made a version."""
