"""CSV text as rows of cells (RFC 4180). A row that cannot be understood costs itself alone."""

import csv
import io
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, count
from typing import Final, Self

import msgspec

MAX_LINE: Final = 1_048_576
"""Characters. A line may not grow without limit, or one missing line break would fill the memory."""
DELIMITERS: Final = (",", ";", "\t", "|")
"""Tried if no delimiter is given; the first of equal candidates wins."""

_NAMED_DELIMITER: Final = re.compile(r'"?sep=([^"\r\n])"?[\r\n]*', re.I)
_STEP: Final = 16_384
"""Cells of a step, about; a record counts as some more."""
_RECORD_WEIGHT: Final = 12
_CAREFUL_WEIGHT: Final = 16
MAX_RECORD_LINES: Final = 10_000
"""Lines of one record. It is read in one go, and no cell that an item can have has as many."""
_LINE_WEIGHT: Final = 50
"""Characters that take as long to look at as one more line does."""


class Record(msgspec.Struct, frozen=True, gc=False):
    """A row and the line it begins in, or (`cells` None) the text of a line and the `problem` with it."""

    line: int
    cells: list[str] | None
    text: str = ""
    problem: str = ""
    too_long: bool = False


class Lines:
    """Text → lines, `None` for one longer than `MAX_LINE`. `\\r`, `\\n` and `\\r\\n` end a line and are kept; no other
    character does."""

    def __init__(self) -> None:
        self.number = 0
        """Lines that came out so far."""
        self._parts: list[str] = []
        """The beginning of the next line; only its last character can be a `\\r`."""
        self._size = 0
        self._after_cr = False
        self._skipping = False

    def feed(self, text: str) -> list[str | None]:
        if not text:
            return []
        if not self._after_cr and "\n" not in text and "\r" not in text:
            self._keep(text)
            return []
        whole = "".join(self._parts) + text
        self._parts, self._size, self._after_cr = [], 0, False
        found: list[str | None] = list(io.StringIO(whole, newline=""))
        # A `\r` at the end may be half of a `\r\n`.
        rest = None if whole[-1] == "\n" else found.pop()
        if self._skipping or len(whole) > MAX_LINE:
            found = [self._measure(line) for line in found]
        self.number += len(found)
        if rest is not None:
            self._keep(rest)
        return found

    def finish(self) -> list[str | None]:
        if not (self._parts or self._skipping):
            return []
        self.number += 1
        return [self._measure("".join(self._parts))]

    def _measure(self, line: str | None) -> str | None:
        """The line, unless it is too long."""
        assert line is not None
        if self._skipping or (len(line) > MAX_LINE and len(line.rstrip("\r\n")) > MAX_LINE):
            self._skipping = False
            return None
        return line

    def _keep(self, rest: str) -> None:
        self._after_cr = rest.endswith("\r")
        self._size += len(rest) - self._after_cr
        if self._skipping or self._size > MAX_LINE:
            self._skipping = True
            self._parts = ["\r"] if self._after_cr else []
        else:
            self._parts.append(rest)


class Line(msgspec.Struct, frozen=True, gc=False):
    """A line of `Lines`; `number` counts from 1."""

    number: int
    text: str | None


class _Dry(Exception):
    """The lines so far end within a record."""


class _Runaway(msgspec.Struct, frozen=True):
    """A record that ran from line `first` to line `last` within a quote, and failed there for the reason `problem`.

    Whoever is within a quote at the beginning of a line in between reads on exactly as it did, so it fails for the same
    reason. That spares reading those lines once more for each line that opens a quote, which would take quadratic time:
    every line is read at most twice, once as the first of a record and once within one.
    """

    first: int
    last: int
    problem: str

    def covers(self, line: int) -> bool:
        """Whether a quote that is open where this line begins ends as this one did."""
        return self.first < line <= self.last


_NO_RUNAWAY: Final = _Runaway(0, 0, "")


class _Source:
    """Lines for `csv.reader`, remembering those of the record being read so that they can be given back."""

    def __init__(self, waiting: deque[Line], *, final: bool, runaway: _Runaway = _NO_RUNAWAY) -> None:
        self.waiting = waiting
        self.final = final
        self.runaway = runaway
        self.taken: list[Line] = []
        self.size = 0
        self.open = False
        """Whether the record did not end with its first line: a quote was open there."""

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        self.open = bool(self.taken)
        if not self.waiting:
            if self.final:
                raise StopIteration
            raise _Dry
        if self.open and self.runaway.covers(self.waiting[0].number):
            raise csv.Error(self.runaway.problem)
        line = self.waiting.popleft()
        self.taken.append(line)
        if line.text is None:
            raise csv.Error(f"the line is longer than {MAX_LINE:,} characters")
        if len(self.taken) > MAX_RECORD_LINES:
            raise csv.Error(f"the record is longer than {MAX_RECORD_LINES:,} lines")
        self.size += len(line.text)
        if self.size > MAX_LINE and len(self.taken) > 1:
            raise csv.Error(f"the record is longer than {MAX_LINE:,} characters")
        return line.text

    def begin(self) -> None:
        self.taken.clear()
        self.size = 0
        self.open = False

    def fail(self, problem: str) -> None:
        """Remember how an open quote ended."""
        first, last = self.taken[0].number, self.taken[-1].number
        if first < last:
            self.runaway = _Runaway(first, last, problem)

    def give_back(self, *, first: bool) -> None:
        """Return the lines of the record, or all but its first, so that one open quote costs one line only."""
        self.waiting.extendleft(reversed(self.taken if first else self.taken[1:]))


class Records:
    """Text → records, blank lines left out; cells are exactly as they were written.

    `delimiter` None: the one of `DELIMITERS` that cuts the first record into most cells, best without cutting
    a quoted one.
    """

    def __init__(self, delimiter: str | None = None) -> None:
        self.delimiter = delimiter
        self._lines = Lines()
        self._held: list[str | None] = []
        """The last lines, of which no record came yet."""
        self._runaway = _NO_RUNAWAY
        self._begun = False
        self._new = 0
        self._enough = 0
        """Characters and lines, weighed, that must come before another look at an open record is worth while: looking
        at all of it for each piece of it would take quadratic time."""

    @property
    def line(self) -> int:
        """Lines read so far."""
        return self._lines.number

    def feed(self, text: str, *, at_once: bool = False) -> list[Record]:
        """`at_once` has every record come out that is whole, however few there are."""
        return [*chain.from_iterable(self.read(text, at_once=at_once))]

    def finish(self) -> list[Record]:
        return [*chain.from_iterable(self.read(None))]

    def read(self, text: str | None, *, at_once: bool = False) -> Iterator[list[Record]]:
        """`feed` (or `finish`, for None) in steps: each list takes some milliseconds. To be asked for to its end."""
        if text is None:
            self._held += self._lines.finish()
            return self._read(final=True)
        lines = self._lines.feed(text)
        self._held += lines
        if self._enough:
            self._new += _weigh(lines)
        if not at_once and (not lines or self._new < self._enough):
            return iter(())
        return self._read(final=False)

    def _read(self, *, final: bool) -> Iterator[list[Record]]:
        self._new = self._enough = 0
        if not self._begun:
            self._begin()
        if self.delimiter is None:
            source = self._open_source(final=final)
            if not self._choose_delimiter(source):
                self._enough = _weigh(self._held)
                return
            self._held = [line.text for line in source.waiting]
        yield from self._read_quickly()
        if self._held:
            yield from self._read_carefully(final=final)

    def _begin(self) -> None:
        """Leave out the blank lines before the first record, and use the delimiter of Excel's first line, `sep=;`."""
        for at, line in enumerate(self._held):
            if line is None or line.strip("\r\n"):
                self._begun = True
                named = _NAMED_DELIMITER.fullmatch(line) if line else None
                if named is not None:
                    self.delimiter = named[1]
                del self._held[: at + (named is not None)]
                return
        self._held.clear()

    def _read_quickly(self) -> Iterator[list[Record]]:
        """Records up to the first one that is broken or not whole: most often all of them."""
        if _measure(self._held) > MAX_LINE:
            return  # a record may be too long
        first = self._lines.number - len(self._held) + 1
        done = weight = 0
        found: list[Record] = []
        # csv raises its own error where a line is None, for being too long.
        reader = csv.reader(self._held, delimiter=self.delimiter or ",", strict=True)  # type: ignore[arg-type]
        try:
            for cells in reader:
                if reader.line_num - done > MAX_RECORD_LINES:
                    break
                if cells:
                    found.append(Record(first + done, cells))
                    weight += len(cells)
                done = reader.line_num
                weight += _RECORD_WEIGHT
                if weight > _STEP:
                    yield found
                    found, weight = [], 0
        except csv.Error:
            pass
        del self._held[:done]
        yield found

    def _read_carefully(self, *, final: bool) -> Iterator[list[Record]]:
        """Records one by one, so that a broken one costs itself alone, and the lines of an open one are kept."""
        source = self._open_source(final=final)
        # strict: `"abc"def` is an error instead of a silently different value.
        reader = csv.reader(source, delimiter=self.delimiter or ",", strict=True)
        found: list[Record] = []
        weight = 0
        while True:
            try:
                record = _read_record(reader, source)
            except _Dry:
                self._enough = source.size + _LINE_WEIGHT * len(source.taken)
                source.give_back(first=True)
                break
            if record is None:
                break
            if record.cells or record.problem:
                found.append(record)
            weight += _CAREFUL_WEIGHT + len(record.cells or ())
            if weight > _STEP:
                yield found
                found, weight = [], 0
        self._held = [line.text for line in source.waiting]
        self._runaway = source.runaway
        yield found

    def _open_source(self, *, final: bool) -> _Source:
        first = self._lines.number - len(self._held) + 1
        return _Source(deque(map(Line, count(first), self._held)), final=final, runaway=self._runaway)

    def _choose_delimiter(self, source: _Source) -> bool:
        """Whether the first record is there, and with it the delimiter; blank lines before it go."""
        while source.waiting and source.waiting[0].text is not None and not source.waiting[0].text.strip("\r\n"):
            source.waiting.popleft()
        best, most = ",", (False, 1)
        for candidate in DELIMITERS:
            trial = _Source(source.waiting.copy(), final=source.final)
            try:
                record = _read_record(csv.reader(trial, delimiter=candidate, strict=True), trial)
            except _Dry:
                return False
            if record is None or record.cells is None or len(record.cells) == 1:
                continue
            # An odd quote within a cell was most likely cut off from the other one of its pair.
            rank = (not any(cell.count('"') % 2 for cell in record.cells), len(record.cells))
            if rank > most:
                best, most = candidate, rank
        self.delimiter = best
        return True


def _measure(lines: Iterable[str | None]) -> int:
    """Characters; a line that is too long was not kept."""
    return sum([len(line) for line in lines if line])


def _weigh(lines: Sequence[str | None]) -> int:
    return _measure(lines) + _LINE_WEIGHT * len(lines)


def _read_record(reader: Iterator[list[str]], source: _Source) -> Record | None:
    source.begin()
    try:
        cells = next(reader)
    except StopIteration:
        return None
    except csv.Error as error:
        first = source.taken[0]
        source.fail(str(error))
        problem, too_long = _explain(str(error), within_quote=source.open)
        source.give_back(first=False)
        return Record(first.number, None, (first.text or "").rstrip("\r\n"), problem, too_long)
    return Record(source.taken[0].number, cells)


def _explain(text: str, *, within_quote: bool) -> tuple[str, bool]:
    """Of an error of `csv`; `within_quote`: the record went on in a second line."""
    if not within_quote and "field larger" in text:
        return f"a cell has more than {csv.field_size_limit():,} characters", True
    if "unexpected end of data" in text or "field larger" in text or (within_quote and "longer than" in text):
        return "a quote is opened in this line and never closed", False
    if "longer than" in text:
        return text, True
    return f"not valid CSV: {text}", False
