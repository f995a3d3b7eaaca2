"""The file of failed rows: downloaded from the service, and written in the form of the file that was pushed."""

import csv
import heapq
import io
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import IO, Final, TextIO

import msgspec

from app.cli.client.api_client import ApiClient
from app.cli.client.errors import UsageError
from app.cli.client.jobs import job_path
from app.cli.client.outcomes import FailedItems, Note, Outcomes
from app.cli.client.source_file import CsvFile, SourceFile
from app.cli.client.upload_body import CSV, NDJSON
from app.files.csv_columns import NOTES, guard_key
from app.files.csv_injection import neutralize, restore
from app.files.csv_reader import DELIMITERS

REASONS: Final = ".reasons.ndjson"
_LONGEST_CELL: Final = 1 << 24
"""A row that does not fit its header comes back as one cell."""


def check_target(target: str, source: SourceFile) -> None:
    """Find out before anything is sent whether the file can be written.

    Raises:
        UsageError: it cannot, or it is the file being pushed.
    """
    path = Path(target)
    if path.exists() and os.path.samefile(path, source.path):
        raise UsageError(f"--failed-out {target} is the file being pushed; name another one")
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise UsageError(f"--failed-out {target} cannot be written")
    if isinstance(source, CsvFile) and not source.columns.has_notes:
        clash = [name for name in source.columns.header if name in NOTES]
        if clash:
            raise UsageError(
                f"--failed-out adds a column {clash[0]!r}, which the file has already; rename it in the file"
            )


async def download_items(api: ApiClient, items: FailedItems, media_type: str, out: IO[bytes]) -> None:
    """Failed items as they were sent, in item order.

    Raises:
        RefusedError, TimedOutError: see `ApiClient.save`.
    """
    params = {**items.filters, "sent": "true"}
    await api.save(job_path(items.job_id, "/items"), params=params, media_type=media_type, out=out)


async def write_failed(api: ApiClient, target: str, source: SourceFile, outcomes: Outcomes) -> int:
    """Replace `target` by the rows that are not ok; their number is returned.

    When there is none, a CSV file is left with its header only and an NDJSON file empty, so that a file of an earlier
    push never passes for this one's. NDJSON goes with `TARGET.reasons.ndjson`, one line for each line of the target.

    Raises:
        RefusedError, TimedOutError: the rows cannot be downloaded.
        OSError: the target cannot be written.
    """
    with ExitStack() as stack:
        downloads: _Downloads = []
        for items in outcomes.groups:
            out = stack.enter_context(tempfile.TemporaryFile(prefix="tranche-failed-"))
            await download_items(api, items, CSV if isinstance(source, CsvFile) else NDJSON, out)
            out.seek(0)
            downloads.append((items, out))
        if isinstance(source, CsvFile):
            return _write_csv(target, source, downloads)
        return _write_ndjson(target, source, downloads)


_Downloads = list[tuple[FailedItems, IO[bytes]]]


def _write_csv(target: str, source: CsvFile, downloads: _Downloads) -> int:
    count = 0
    usual = csv.field_size_limit(_LONGEST_CELL)
    try:
        with _replace(target, encoding=source.written, errors="replace") as out:
            writer = csv.writer(out, delimiter=source.delimiter, lineterminator="\r\n")
            tables = [(items, *_read_csv(stream)) for items, stream in downloads]
            header = [*NOTES, *_own_header(source)]
            served = tables[0][1] if tables else header
            # With as many columns they are the same, and the user's names are better known than the service's.
            _write_header(out, source, header if len(served) == len(header) else served)
            rows = heapq.merge(*(zip(items.rows, rows, strict=False) for items, _, rows in tables), key=itemgetter(0))
            for _, same in groupby(rows, key=itemgetter(0)):
                writer.writerow(next(same)[1])
                count += 1
    finally:
        csv.field_size_limit(usual)
    return count


def _read_csv(stream: IO[bytes]) -> tuple[list[str], Iterator[list[str]]]:
    rows = csv.reader(io.TextIOWrapper(stream, encoding="utf-8", newline=""))
    return next(rows, []), rows


def _write_header(out: TextIO, source: CsvFile, names: list[str]) -> None:
    # The delimiter is guessed from this line: nothing in it may look like another one.
    risky = any(sign in name for name in names for sign in DELIMITERS if sign != source.delimiter)
    quoting = csv.QUOTE_ALL if risky else csv.QUOTE_MINIMAL
    csv.writer(out, delimiter=source.delimiter, lineterminator="\r\n", quoting=quoting).writerow(names)  # type: ignore[arg-type]


def _own_header(source: CsvFile) -> list[str]:
    """The columns that the service gives back, each field under the name it has in the pushed file."""
    columns = source.columns
    names: list[str] = []
    for i, (name, target) in enumerate(zip(columns.header, columns.targets, strict=True)):
        if target is None:
            continue
        if i == columns.both:
            names += ["id", columns.mail]
        elif i in columns.attributes:
            names.append(guard_key(source.known, target))
        else:
            names.append(restore(name) if columns.has_notes else name)
    return [neutralize(name) for name in names]


def _write_ndjson(target: str, source: SourceFile, downloads: _Downloads) -> int:
    count, lines = 0, enumerate(source.lines())
    with (
        _replace(target, encoding="utf-8", errors="surrogateescape") as out,
        _replace(target + REASONS, encoding="utf-8", errors="backslashreplace") as reasons,
    ):
        streams = (zip(items.rows, stream, items.notes(), strict=False) for items, stream in downloads)
        for row, same in groupby(heapq.merge(*streams, key=itemgetter(0)), key=itemgetter(0)):
            found = list(same)
            line = next((line for number, line in lines if number == row), None)
            count += 1
            out.write(found[0][1].decode("utf-8", "surrogateescape"))
            reason = {"line": count, "source_line": line, **_describe([note for _, _, note in found])}
            reasons.write(msgspec.json.encode(reason).decode() + "\n")
    return count


def _describe(notes: list[Note]) -> Mapping[str, object]:
    errors = [
        {
            "destination": note.destination or None,
            "status": note.status,
            "error_code": note.code,
            "error_detail": note.detail,
            "retry_after_seconds": note.retry_after,
        }
        for note in notes
    ]
    return {"id": notes[0].item_id, "errors": errors}


@contextmanager
def _replace(target: str, *, encoding: str, errors: str) -> Iterator[TextIO]:
    """A file that takes the target's place when it is whole, and never before."""
    path = Path(os.path.realpath(target))
    fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(fd, "w", encoding=encoding, errors=errors, newline="") as out:
            yield out
            out.flush()
            # mkstemp is private by design; the result follows the usual rule for new files, or the file it replaces.
            os.fchmod(out.fileno(), path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask())
            os.fsync(out.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _umask() -> int:
    current = os.umask(0o077)
    os.umask(current)
    return current
