"""`python -m app.files.workbook.extract ASK`: a workbook from standard input, the rows of one sheet to standard output.

The library that reads the cells is made for files that one trusts. So it runs alone in this process, which has no
secrets, a limit of memory and one of CPU; whatever ends it costs one import.
"""

import resource
import sys
from collections.abc import Iterator
from typing import IO, Final

import msgspec
from python_calamine import CalamineError, CalamineWorkbook, PasswordError

from app.files.workbook import cells
from app.files.workbook.addresses import MAX_COLUMNS
from app.files.workbook.package import FREE_INFLATION, SAVE, Package, Tab, choose, unreadable
from app.files.workbook.protocol import (
    DAMAGED,
    MAX_ROW,
    NO_MEMORY,
    TOO_LONG,
    TOO_MANY,
    WHOLE_ROW,
    Ask,
    Refusal,
    Row,
    Sheet,
    Why,
    WorkbookError,
    encode,
)
from app.files.workbook.scan import Scan

_INTERPRETER: Final = 200_000_000
"""Bytes of addresses that Python takes before it reads anything."""
_CPU: Final = 10
"""Seconds for any workbook…"""
_BYTES_PER_SECOND: Final = 2_000_000
"""…and one more for so many bytes: some ten times as long as it takes."""


def main(argument: str, stream: IO[bytes], out: IO[bytes]) -> int:
    ask = msgspec.json.decode(argument, type=Ask)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (ask.memory + _INTERPRETER, resource.RLIM_INFINITY))
    _limit_cpu(_CPU)
    try:
        sheet, rows = _open(stream, ask)
    except WorkbookError as refused:
        out.write(encode(Refusal(refused.why, refused.detail)) + b"\n")
        out.flush()
        return 0
    out.write(encode(sheet) + b"\n")
    most = max(FREE_INFLATION, ask.most_inflation * stream.seek(0, 2))
    for row in rows:
        line = encode(row)
        most -= len(line)
        if most < 0:
            return TOO_MANY
        out.write(line + b"\n")
    out.flush()
    return 0


def _limit_cpu(seconds: int) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.RLIM_INFINITY))


def _open(stream: IO[bytes], ask: Ask) -> tuple[Sheet, Iterator[Row]]:
    package = Package(stream, ask)
    if ask.at_once is not None and package.size > ask.at_once:
        raise WorkbookError(Why.LATER)
    _limit_cpu(_CPU + package.size // _BYTES_PER_SECOND)
    tab, scan = _find(package, ask)
    package.verify()
    stream.seek(0)
    try:
        read = CalamineWorkbook.from_filelike(stream).get_sheet_by_name(tab.name)
    except PasswordError as error:
        raise unreadable("the workbook is protected with a password: save it without one") from error
    except CalamineError as error:
        raise unreadable(f"the sheet {tab.name!r} is damaged ({str(error)[:200]}); {SAVE}") from error
    start = read.start[1] if read.start else MAX_COLUMNS
    left = min([start, *(column for faults in scan.faults.values() for column in faults)])
    return Sheet(tab.name, left), _rows(read.iter_rows(), scan.faults, left, start - left, typed=ask.typed)


def _find(package: Package, ask: Ask) -> tuple[Tab, Scan]:
    """The sheet that is meant."""
    tabs = package.tabs()
    for tab in choose(tabs, ask.sheet):
        scan = Scan(package, tab, ask.memory)
        if scan.filled:
            return tab, scan
        if ask.sheet:
            raise WorkbookError(Why.NO_SHEET, f"the sheet {tab.name!r} is empty; choose another one with sheet=")
    raise WorkbookError(
        Why.NO_SHEET, f"the workbook has no visible sheet with contents ({len(tabs)} sheets were looked at)"
    )


def _rows(
    read: Iterator[list[cells.Value]], faults: dict[int, dict[int, str]], left: int, before: int, *, typed: bool
) -> Iterator[Row]:
    """`before`: columns from `left` on that the library leaves out, because it sees no value in them."""
    number = -1
    while True:
        number += 1
        try:
            values = next(read)
        except StopIteration:
            break
        except OverflowError:
            yield Row(number + 1, [], {WHOLE_ROW: ""})
            continue
        found = faults.pop(number, {})
        if found or any(value != "" for value in values):
            yield _row(number, [""] * before + values, left, found, typed=typed)
    for number, found in sorted(faults.items()):
        yield _row(number, [], left, found, typed=typed)


def _row(number: int, values: list[cells.Value], left: int, faults: dict[int, str], *, typed: bool) -> Row:
    texts = [value if type(value) is str else cells.write(value) for value in values]
    if sum(map(len, texts)) > MAX_ROW:
        return Row(number + 1, [], {WHOLE_ROW: TOO_LONG})
    places: dict[int, str] = {}
    for column, error in faults.items():
        place = column - left
        places[place] = error
        texts += [""] * (place + 1 - len(texts))
        texts[place] = error
    while texts and not texts[-1]:
        texts.pop()
    numbers = [i for i, value in enumerate(values) if not isinstance(value, str | bool)] if typed else []
    return Row(number + 1, texts, places, numbers)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1], open(0, "rb"), open(1, "wb", buffering=1 << 16)))  # noqa: SIM115 - they end with it
    except MemoryError:
        sys.exit(NO_MEMORY)
    except Exception:
        sys.exit(DAMAGED)
