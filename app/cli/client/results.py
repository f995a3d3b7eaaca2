"""What became of the rows: counts of those that are well, a note for each that is not.

Notes live in a temporary SQLite database that spills to disk, so that a file of which every row fails needs no more
memory than one of which none does.
"""

from __future__ import annotations

import sqlite3
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from typing import Final

import msgspec

from app.cli.client.rows import Row
from app.domain.outcomes import ErrorCode, ItemStatus

REASONS: Final = 20
"""Different reasons shown for one code."""
SAMPLES: Final = 5
UNPLACED: Final = 0

_SCHEMA: Final = """
CREATE TABLE notes (
    number INTEGER NOT NULL, line INTEGER NOT NULL, destination TEXT NOT NULL, status TEXT NOT NULL,
    code TEXT NOT NULL, detail TEXT NOT NULL, retry_after REAL NOT NULL,
    PRIMARY KEY (number, destination)
) WITHOUT ROWID
"""


class Note(msgspec.Struct, frozen=True):
    """Why a row is not well: here (`destination` is empty) or at a destination."""

    number: int
    line: int
    """`UNPLACED` until `Results.place` was called, where rows were sent without being looked at."""
    destination: str
    status: str
    code: str
    detail: str
    retry_after: float = 0.0


class Reason(msgspec.Struct, frozen=True):
    """Rows that are not well, in the same words."""

    detail: str
    count: int
    lines: list[int]


class Cluster(msgspec.Struct, frozen=True):
    """Rows that are not well for one reason."""

    destination: str
    status: str
    code: str
    count: int
    lines: list[int]
    """The first few, for a look into the file."""
    detail: str
    """The reason of the first of them."""
    reasons: list[Reason] = []
    """All reasons, the most frequent first; at most `REASONS`."""
    more: int = 0
    """Rows with other reasons."""


class SentJob(msgspec.Struct):
    """A job that took some rows: `numbers[i]` and `lines[i]` belong to the job's item i.

    A file that was sent as a whole has no `lines`, and the numbers are a range.
    """

    job_id: str
    numbers: Sequence[int]
    lines: Sequence[int] = ()
    state: str = ""
    effects: dict[str, dict[str, int]] = {}
    waiting: str = ""
    """What keeps it from going on, as far as the job says."""
    awaited: bool = False

    def line(self, index: int) -> int:
        return self.lines[index] if self.lines else UNPLACED


class Results:
    """The outcomes of one run. Not for several threads."""

    def __init__(self) -> None:
        self.ok: Counter[str] = Counter()
        """Rows that are well here, by result: created, updated, unchanged, superseded."""
        self.failed = 0
        self.retry = 0
        self.requests = 0
        self.replayed = 0
        self.jobs: list[SentJob] = []
        self._notes = sqlite3.connect("")
        self._notes.execute(_SCHEMA)

    def close(self) -> None:
        self._notes.close()

    @property
    def decided(self) -> int:
        return self.ok.total() + self.failed

    def add(self, notes: Iterable[Note]) -> None:
        """Keep the notes; a newer one for the same row and place takes the old one's place."""
        self._notes.executemany(
            "INSERT OR REPLACE INTO notes VALUES (?, ?, ?, ?, ?, ?, ?)",
            ((n.number, n.line, n.destination, n.status, n.code, n.detail, n.retry_after) for n in notes),
        )

    def forget(self, numbers: Iterable[int]) -> None:
        """Drop the notes of rows that went well when they were sent again."""
        self._notes.executemany(
            "DELETE FROM notes WHERE number = ? AND destination = ''", ((n,) for n in numbers)
        )

    def waiting(self) -> array[int]:
        """The rows that should be sent again, in file order."""
        found = self._notes.execute(
            "SELECT number FROM notes WHERE status = ? AND destination = '' ORDER BY number",
            (ItemStatus.RETRY,),
        )
        return array("Q", (number for (number,) in found))

    def longest_wait(self) -> float:
        """Seconds before which none of the rows that wait should be sent."""
        found = self._notes.execute(
            "SELECT max(retry_after) FROM notes WHERE status = ? AND destination = ''", (ItemStatus.RETRY,)
        ).fetchone()
        return float(found[0] or 0.0)

    def only_aborted(self) -> bool:
        """Whether no row failed but for others that did not make it."""
        found = self._notes.execute(
            "SELECT 1 FROM notes WHERE status <> ? AND code <> ? LIMIT 1",
            (ItemStatus.RETRY, ErrorCode.ATOMIC_ABORTED),
        ).fetchone()
        return found is None

    def clear(self) -> None:
        """Forget every outcome: all rows are sent once more."""
        self.ok.clear()
        self.failed = self.retry = 0
        self._notes.execute("DELETE FROM notes")

    def place(self, rows: Iterable[Row]) -> int | None:
        """Tell the notes of rows that were sent unread in which lines these stand; `rows` are all of the file.

        Their number is returned, or `None` when no note lacks its line and nothing was read.
        """
        lacking = array(
            "Q",
            (
                number
                for (number,) in self._notes.execute(
                    "SELECT DISTINCT number FROM notes WHERE line = ? ORDER BY number", (UNPLACED,)
                )
            ),
        )
        if not lacking:
            return None
        count = at = 0
        for row in rows:
            count += 1
            if at < len(lacking) and row.number == lacking[at]:
                at += 1
                self._notes.execute("UPDATE notes SET line = ? WHERE number = ?", (row.line, row.number))
        return count

    def effects(self) -> dict[str, Counter[str]]:
        """How many items stand in which state at each destination, over all jobs."""
        total: dict[str, Counter[str]] = {}
        for job in self.jobs:
            for name, counts in job.effects.items():
                total.setdefault(name, Counter()).update(
                    {s: c for s, c in counts.items() if isinstance(c, int)}
                )
        return total

    def waits(self) -> list[str]:
        """What the jobs themselves say that they wait for, each once."""
        return list(dict.fromkeys(job.waiting for job in self.jobs if job.waiting))

    def open_jobs(self) -> list[SentJob]:
        return [job for job in self.jobs if job.awaited]

    def has_failures(self) -> bool:
        """Whether some row failed for good, here or at a destination."""
        row = self._notes.execute(
            "SELECT 1 FROM notes WHERE status <> ? LIMIT 1", (ItemStatus.RETRY,)
        ).fetchone()
        return row is not None

    def clusters(self) -> list[Cluster]:
        """The notes by reason, most frequent first."""
        found = self._notes.execute(
            "SELECT destination, status, code, count(*), min(number) FROM notes "
            "GROUP BY destination, status, code ORDER BY count(*) DESC, code, destination"
        ).fetchall()
        clusters = []
        for destination, status, code, count, first in found:
            lines = self._notes.execute(
                "SELECT line FROM notes WHERE destination = ? AND status = ? AND code = ? ORDER BY number LIMIT ?",
                (destination, status, code, SAMPLES),
            ).fetchall()
            detail = self._notes.execute(
                "SELECT detail FROM notes WHERE number = ? AND destination = ?", (first, destination)
            ).fetchone()
            reasons = self._reasons(destination, status, code)
            clusters.append(
                Cluster(
                    destination,
                    status,
                    code,
                    count,
                    [line for (line,) in lines],
                    detail[0],
                    reasons,
                    count - sum(reason.count for reason in reasons),
                )
            )
        return clusters

    def _reasons(self, destination: str, status: str, code: str) -> list[Reason]:
        place = (destination, status, code)
        found = self._notes.execute(
            "SELECT detail, count(*) FROM notes WHERE destination = ? AND status = ? AND code = ? "
            "GROUP BY detail ORDER BY count(*) DESC, min(number) LIMIT ?",
            (*place, REASONS),
        ).fetchall()
        return [
            Reason(
                detail,
                count,
                [
                    line
                    for (line,) in self._notes.execute(
                        "SELECT line FROM notes WHERE destination = ? AND status = ? AND code = ? AND detail = ? "
                        "ORDER BY number LIMIT ?",
                        (*place, detail, SAMPLES),
                    )
                ],
            )
            for detail, count in found
        ]

    def by_row(self) -> Iterator[list[Note]]:
        """The notes of each row that has any, in file order."""
        with closing(self._notes.cursor()) as cursor:
            cursor.execute("SELECT * FROM notes ORDER BY number, destination")
            group: list[Note] = []
            for values in cursor:
                note = Note(*values)
                if group and group[0].number != note.number:
                    yield group
                    group = []
                group.append(note)
            if group:
                yield group
