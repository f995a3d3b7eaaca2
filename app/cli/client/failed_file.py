"""The file of rows that did not make it: what the user sent, with the reasons, ready to be fixed and pushed again."""

from __future__ import annotations

import csv
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TextIO

import msgspec

from app.cli.client.columns import NOTES
from app.cli.client.csv_file import CsvSource
from app.cli.client.errors import ClientError, UsageError
from app.cli.client.json_file import JsonSource, NdjsonSource
from app.cli.client.results import Note, Results
from app.cli.client.rows import Row
from app.domain.files.columns import KEY_PREFIX
from app.domain.files.formulas import neutralize, restore

REASONS: Final = ".reasons.ndjson"

AnySource = CsvSource | NdjsonSource | JsonSource


def check_target(target: str, source: AnySource) -> None:
    """Find out before anything is sent whether the file can be written.

    Raises:
        UsageError: it cannot, or it is the file being pushed.
    """
    path = Path(target)
    if path.exists() and os.path.samefile(path, source.path):
        raise UsageError(f"--failed-out {target} is the file being pushed; name another one")
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise UsageError(f"--failed-out {target} cannot be written")
    if isinstance(source, CsvSource):
        source.check_notes()


def write_failed(target: str, source: AnySource, results: Results) -> int:
    """Replace `target` by the rows that have a note; their number is returned.

    When there is none, a CSV file is left with its header only and an NDJSON file empty, so that a file of an earlier
    push never passes for this one's. NDJSON goes with `TARGET.reasons.ndjson`, one line for each line of the target.

    Raises:
        ClientError: the source is no longer what was sent.
        OSError: the target cannot be written.
    """
    pairs = _match(source, results)
    if isinstance(source, CsvSource):
        written, on_error = source.encoding.written, source.encoding.on_write
        with _replace(target, encoding=written, errors=on_error) as out:
            return _write_csv(out, source, pairs)
    with (
        _replace(target, encoding="utf-8", errors="surrogateescape") as out,
        _replace(target + REASONS, encoding="utf-8", errors="backslashreplace") as reasons,
    ):
        return _write_ndjson(out, reasons, pairs)


def _match(source: AnySource, results: Results) -> Iterator[tuple[Row, list[Note]]]:
    """Each row that has notes, by reading the source once more: the rows themselves were never kept."""
    groups = results.by_row()
    notes = next(groups, None)
    if notes is None:
        return
    for row in source.rows():
        if row.number != notes[0].number:
            continue
        if row.line != notes[0].line:
            break
        yield row, notes
        notes = next(groups, None)
        if notes is None:
            return
    raise ClientError(f"{source.path} has changed since it was sent; its failed rows cannot be told any more")


def _summarize(notes: list[Note]) -> tuple[str, str, str]:
    detail = "; ".join(f"{n.destination}: {n.detail}" if n.destination else n.detail for n in notes)
    seconds = max(n.retry_after for n in notes)
    return notes[0].code, detail, f"{seconds:g}"


def _write_csv(out: TextIO, source: CsvSource, pairs: Iterator[tuple[Row, list[Note]]]) -> int:
    # Our columns stand first: a row with too few or too many cells then stays as it was, and fails again until
    # somebody has fixed it.
    write: Callable[[list[str]], Any] = csv.writer(
        out, delimiter=source.delimiter, lineterminator="\r\n"
    ).writerow
    write([*NOTES, *_guard_header(source)])
    count = 0
    for row, notes in pairs:
        count += 1
        own = [_fit(neutralize(cell), out) for cell in _summarize(notes)]
        if not isinstance(row.original, str):
            write([*own, *(_guard(cell, source) for cell in row.original)])
        elif source.columns.has_notes:
            out.write(row.original + "\r\n")
        else:
            prefix = _Cells()
            csv.writer(prefix, delimiter=source.delimiter, lineterminator="").writerow(own)
            out.write(f"{prefix.text}{source.delimiter}{row.original}\r\n")
    return count


def _guard(cell: str, source: CsvSource) -> str:
    """A cell that no spreadsheet runs. A file of failed rows has most of its cells guarded already."""
    return neutralize(restore(cell) if source.columns.has_notes else cell)


def _guard_header(source: CsvSource) -> list[str]:
    if source.columns.has_notes:
        return [_guard(name, source) for name in source.own_header]
    marked = (
        KEY_PREFIX + name if name == target and name.startswith(KEY_PREFIX) else name
        for name, target in zip(source.columns.header, source.columns.targets, strict=True)
    )
    return [neutralize(name) for name in marked]


class _Cells:
    text = ""

    def write(self, text: str) -> int:
        self.text += text
        return len(text)


def _fit(text: str, out: TextIO) -> str:
    """Our words may have letters that the user's encoding lacks."""
    encoding = out.encoding
    return text.encode(encoding, "replace").decode(encoding)


def _write_ndjson(out: TextIO, reasons: TextIO, pairs: Iterator[tuple[Row, list[Note]]]) -> int:
    count = 0
    for row, notes in pairs:
        count += 1
        # A line break can only be white space between tokens: inside a JSON string it would be escaped.
        out.write(re.sub(r"[\r\n]+", " ", str(row.original)) + "\n")
        reason = {
            "line": count,
            "source_line": row.line,
            "id": row.key or None,
            "errors": [
                {
                    "destination": n.destination or None,
                    "status": n.status,
                    "error_code": n.code,
                    "error_detail": n.detail,
                    "retry_after_seconds": n.retry_after,
                }
                for n in notes
            ],
        }
        reasons.write(msgspec.json.encode(reason).decode() + "\n")
    return count


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
