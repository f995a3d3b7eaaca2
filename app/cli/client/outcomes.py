"""The outcomes of a push: counts of rows that are ok, and the reasons of those that are not.

Rows themselves are not kept, and of reasons a bounded number, so that a file of which every row fails needs little more
memory than one of which none does.
"""

import tempfile
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Final, Self

import msgspec

from app.cli.client.wire import Job

REASONS: Final = 20
"""Different reasons shown for one code."""
SAMPLES: Final = 5
_MOST_REASONS: Final = 10_000
"""Different reasons counted for one code."""
_IN_MEMORY: Final = 1_000_000


class Note(msgspec.Struct, frozen=True):
    """Why a row is not ok: here (`destination` is empty) or at a destination."""

    row: int
    """From 0; blank lines do not count."""
    item_id: str | None
    destination: str
    status: str
    code: str
    detail: str
    retry_after: float = 0.0


_decode_note: Final = msgspec.json.Decoder(Note).decode


class Reason(msgspec.Struct):
    """Rows that are not ok, in the same words; `rows` are the first few."""

    detail: str
    count: int = 0
    rows: list[int] = []

    def add(self, other: Self) -> None:
        self.count += other.count
        self.rows = sorted([*self.rows, *other.rows])[:SAMPLES]


class Cluster(msgspec.Struct):
    """Rows that are not ok with the same code at the same place."""

    destination: str
    status: str
    code: str
    total: Reason
    """All of them; its detail is that of the first."""
    by_detail: dict[str, Reason] = {}

    def add(self, total: Reason, reasons: Iterable[Reason]) -> None:
        self.total.add(total)
        for reason in reasons:
            if (known := self.by_detail.get(reason.detail)) is not None:
                known.add(reason)
            elif len(self.by_detail) < _MOST_REASONS:
                self.by_detail[reason.detail] = Reason(reason.detail, reason.count, reason.rows)

    @property
    def reasons(self) -> list[Reason]:
        """The most frequent first."""
        return sorted(self.by_detail.values(), key=lambda reason: (-reason.count, reason.rows))[:REASONS]


class FailedItems:
    """The items of a job that one filter finds, none of them ok; `rows` are their rows in the file, in item order."""

    def __init__(self, job_id: str, filters: dict[str, str]) -> None:
        self.job_id = job_id
        self.filters = filters
        self.rows = array("Q")
        self.retry_after = 0.0
        """Seconds before which none of those that wait should be sent again."""
        self.clusters: dict[str, Cluster] = {}
        self._notes: IO[bytes] = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115

    def add(self, note: Note) -> None:
        self.rows.append(note.row)
        self.retry_after = max(self.retry_after, note.retry_after)
        cluster = self.clusters.get(note.code)
        if cluster is None:
            cluster = Cluster(note.destination, note.status, note.code, Reason(note.detail))
            self.clusters[note.code] = cluster
        reason = Reason(note.detail, 1, [note.row])
        cluster.add(reason, [reason])
        self._notes.write(msgspec.json.encode(note) + b"\n")

    def notes(self) -> Iterator[Note]:
        """As they were added."""
        self._notes.seek(0)
        return map(_decode_note, self._notes)


class PushedJob(msgspec.Struct):
    """A job that got rows of the file: `rows[i]` is the row that is the job's item i."""

    job_id: str
    rows: Sequence[int] = ()
    state: str = ""
    effects: dict[str, dict[str, int]] = {}
    waiting: str = ""
    """What keeps it from going on, as far as the job says."""
    awaited: bool = False
    """Destinations are still to be waited for."""

    def update(self, job: Job) -> None:
        self.state, self.effects = job.state, job.effects
        self.waiting = job.waiting.detail if job.waiting else ""


class Outcomes:
    def __init__(self) -> None:
        self.ok: Counter[str] = Counter()
        """Rows by result: created, updated, unchanged, superseded."""
        self.lost: list[FailedItems] = []
        """What failed for good, here or at a destination."""
        self.waiting: FailedItems | None = None
        """What is to be sent again."""
        self.requests = 0
        self.replayed = 0
        self.jobs: list[PushedJob] = []

    @property
    def failed(self) -> int:
        """Rows that failed for good here."""
        return sum(len(items.rows) for items in self.lost if "destination" not in items.filters)

    @property
    def retry(self) -> int:
        return 0 if self.waiting is None else len(self.waiting.rows)

    @property
    def total(self) -> int:
        return self.ok.total() + self.failed + self.retry

    @property
    def groups(self) -> list[FailedItems]:
        return [*self.lost, *([] if self.waiting is None else [self.waiting])]

    def clear(self) -> None:
        """Forget every outcome: all rows are sent once more."""
        self.ok.clear()
        self.lost.clear()
        self.waiting = None

    def effects(self) -> dict[str, Counter[str]]:
        """How many items are in which state at each destination, over all jobs."""
        total: dict[str, Counter[str]] = {}
        for job in self.jobs:
            for name, counts in job.effects.items():
                total.setdefault(name, Counter()).update(counts)
        return total

    def waits(self) -> list[str]:
        """What the jobs themselves say that they wait for, each once."""
        return list(dict.fromkeys(job.waiting for job in self.jobs if job.waiting))

    def open_jobs(self) -> list[PushedJob]:
        return [job for job in self.jobs if job.awaited]

    def clusters(self) -> list[Cluster]:
        """All reasons by place and code, the most frequent first."""
        found: dict[tuple[str, str, str], Cluster] = {}
        for items in self.groups:
            for part in items.clusters.values():
                key = (part.destination, part.status, part.code)
                cluster = found.setdefault(key, Cluster(*key, Reason(part.total.detail)))
                cluster.add(part.total, part.by_detail.values())
        return sorted(found.values(), key=lambda c: (-c.total.count, c.code, c.destination))
