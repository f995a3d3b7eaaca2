"""Failed rows, given back as a file that can be corrected and pushed again: a part of the read model."""

import uuid
from collections.abc import AsyncIterator
from typing import Final

import msgspec

from app.errors import Invalid
from app.files.csv_mapping import ColumnNames, names_of
from app.files.failed_rows_file import CsvWriter, NdjsonWriter, Note, Source, Stored, texts_of
from app.files.readers import Kept, measure
from app.files.staging_codec import decode_sources
from app.history import queries as history
from app.history.versions import StoredVersion
from app.job_status.items import queries as rows
from app.job_status.items.item_filter import Filter, JobItem, list_reasons
from app.job_status.items.queries import JobRef
from app.job_status.items.service import Extent, Page, gather, read_extent, read_items
from app.kit.compression import unpack
from app.kit.postgres.database import Connection, Database
from app.resource_types.catalog import Catalog
from app.resources import documents
from app.resources.types.contacts import CONTACTS
from app.vocabulary.states import ItemStatus

STEP: Final = 1_000
"""Rows that are held at a time, or fewer of large ones."""
HELD: Final = 4_000_000
"""Bytes of rows after which no more are taken: one may be a megabyte."""
_VERSIONS: Final = 200


class Download(msgspec.Struct, frozen=True):
    """A file on its way; `position`: where to go on once more items are decided, if there will be any."""

    parts: AsyncIterator[bytes]
    position: int | None


async def open_download(
    database: Database, catalog: Catalog, tenant_id: int, job_id: uuid.UUID, wanted: Filter, *, ndjson: bool = False
) -> Download:
    """All failed rows that are decided now, as CSV or NDJSON.

    Memory is that of `STEP` rows; no connection is held between them.

    Raises:
        NotFound, OutcomesExpired: see `app.job_status.items.service.read_items`.
        Invalid: the items have too many different keys for a CSV.
    """
    async with database.connection() as connection:
        extent = await read_extent(JobRef(connection, tenant_id, job_id))
        names = await _find_names(connection, catalog, tenant_id, extent)
    reader = _Reader(database, tenant_id, job_id, wanted, extent.end)
    writer = _fixed_writer(names, extent.kept, ndjson=ndjson)
    if writer is None:
        seen = _Seen(names)
        async for found in reader.read():
            seen.add(found)
        writer = seen.writer(extent.kept)
    return Download(_encode(reader, writer), extent.end if extent.growing else None)


async def read_page(
    job: JobRef, catalog: Catalog, wanted: Filter, *, first: int, limit: int, ndjson: bool = False
) -> tuple[bytes, Page]:
    """A page as a file of its own; a CSV of JSON items has the keys that occur in it.
    Raises `NotFound`, `OutcomesExpired`, `Invalid`: see `open_download`."""
    extent = await read_extent(job)
    names = await _find_names(job.connection, catalog, job.tenant_id, extent)
    page = await read_items(job, wanted, first=first, limit=limit)
    found = await _find_sources(job, page.items)
    page = _shorten(page, len(found))
    writer = _fixed_writer(names, extent.kept, ndjson=ndjson)
    if writer is None:
        seen = _Seen(names)
        seen.add(found)
        writer = seen.writer(extent.kept)
    return writer.encode_header() + _encode_rows(writer, found, wanted), page


_Writer = CsvWriter | NdjsonWriter


async def _find_names(connection: Connection, catalog: Catalog, tenant_id: int, extent: Extent) -> ColumnNames:
    """Of a job with several types, those of contacts: its rows have few fields in common."""
    return names_of(await catalog.find(connection, tenant_id, extent.type or CONTACTS.name))


def _fixed_writer(names: ColumnNames, kept: Kept | None, *, ndjson: bool) -> _Writer | None:
    """A writer that needs no look at the items first; `None`: their keys become columns."""
    if ndjson:
        return NdjsonWriter()
    writer = CsvWriter(names, kept)
    return writer if writer.fixed else None


_Found = list[tuple[JobItem, Source | None]]


class _Reader(msgspec.Struct, frozen=True):
    """The failed items of a job with their sources, portion by portion, as often as asked."""

    database: Database
    tenant_id: int
    job_id: uuid.UUID
    wanted: Filter
    end: int

    async def read(self) -> AsyncIterator[_Found]:
        position: int | None = 0
        while position is not None and position < self.end:
            async with self.database.connection() as connection:
                job = JobRef(connection, self.tenant_id, self.job_id)
                page = await read_items(job, self.wanted, first=position, limit=STEP, end=self.end)
                found = await _find_sources(job, page.items)
            yield found
            position = _shorten(page, len(found)).position


async def _encode(reader: _Reader, writer: _Writer) -> AsyncIterator[bytes]:
    yield writer.encode_header()
    async for found in reader.read():
        if found:
            yield _encode_rows(writer, found, reader.wanted)


def _encode_rows(writer: _Writer, found: _Found, wanted: Filter) -> bytes:
    return writer.encode_rows((_note(item, wanted), source, item.id) for item, source in found)


def _note(item: JobItem, wanted: Filter) -> Note:
    """All reasons of an item, those that were asked for first."""
    reasons = sorted(list_reasons(item), key=lambda reason: not wanted.names(reason))
    details = [f"{reason.place}: {reason.detail}" if reason.place else reason.detail for reason in reasons]
    return Note(reasons[0].code, "; ".join(details), max(reason.seconds for reason in reasons))


class _Seen:
    """The columns that items need beside those of every file."""

    def __init__(self, names: ColumnNames) -> None:
        self._names = names
        self._keys: dict[str, None] = {}
        self._deletions = False

    def add(self, found: _Found) -> None:
        reader = texts_of(self._names)
        for _, source in found:
            texts = reader.read_source(source)
            if texts is not None:
                self._keys.update(dict.fromkeys(texts.extras))
                self._deletions |= bool(texts.fields.get("deleted"))
        if len(self._keys) > reader.max_keys:
            raise Invalid(
                f"The failed items have more than {reader.max_keys:,} different keys, too many for the columns of a "
                "CSV; ask for fewer of them (status, destination, error_code, limit), or for NDJSON with sent=true."
            )

    def writer(self, kept: Kept | None) -> CsvWriter:
        return CsvWriter(self._names, kept, self._keys, deletions=self._deletions)


def _shorten(page: Page, count: int) -> Page:
    if count == len(page.items):
        return page
    return Page(page.items[:count], page.items[count].index)


async def _find_sources(job: JobRef, items: list[JobItem]) -> _Found:
    """What is known of each item: as it was sent if it failed here, else as it was stored.

    Of the first ones only, if all of them were more than `HELD`.
    """
    failed = [item.index for item in items if item.status is not ItemStatus.OK]
    stored = [item.index for item in items if item.status is ItemStatus.OK]
    sources: dict[int, Source] = {}
    size = 0
    last = items[-1].index if items else -1
    if failed:
        wanted = set(failed)
        async with job.connection.transaction(readonly=True):
            async for packed in rows.read_sources(job, gather(failed)):
                sent = {i: piece for i, piece in decode_sources(unpack(packed)).items() if i in wanted}
                sources |= sent
                size += sum(map(measure, sent.values()))
                if size > HELD:
                    last = max(sent)
                    break
    for start in range(0, len(stored), _VERSIONS):
        some = [index for index in stored[start : start + _VERSIONS] if index <= last]
        if not some:
            break
        versions = await history.read_versions(job.connection, job.tenant_id, [(job.job_id, index) for index in some])
        sources |= {index: _as_stored(made) for (_, index), (made, _) in versions.items()}
        size += sum(len(bytes(made.document)) for made, _ in versions.values())
        if size > HELD:
            last = some[-1]
    return [(item, sources.get(item.index)) for item in items if item.index <= last]


def _as_stored(made: StoredVersion) -> Stored:
    # if_version was met when the item was stored, and would not be met again.
    if made.deleted:
        return Stored({"id": made.record_id, "deleted": True}, "{}")
    document = documents.read(made.document)
    fields = {"id": made.record_id, **documents.fields_of(document), "source_version": made.source_version}
    attributes = msgspec.json.encode(documents.attributes_of(document)).decode()
    return Stored({name: value for name, value in fields.items() if value is not None}, attributes)
