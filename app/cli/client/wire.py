"""The API's responses, as far as the client reads them. Unknown fields are ignored, so that the API may grow."""

from typing import Any, Final, TypeVar

import msgspec

from app.cli.client.errors import RefusedError
from app.vocabulary.outcomes_wire import JobError, Summary
from app.vocabulary.states import EffectState

T = TypeVar("T")

LOST_STATES: Final = (EffectState.FAILED, EffectState.DEAD)
"""An item has not reached the destination, and will not by itself."""


class ItemError(msgspec.Struct, frozen=True):
    code: str = ""
    pointer: str = ""
    detail: str = ""
    cell: str = ""

    @property
    def bare(self) -> str:
        """The detail without the cell: rows with the same fault have the same reason."""
        return self.detail.removeprefix(f"{self.cell} ") if self.cell else self.detail


class Effect(msgspec.Struct, frozen=True):
    """The state of an item at a destination."""

    state: str
    error_code: str | None = None
    detail: str | None = None
    not_restored: list[str] = []
    """Of an undo: fields that were left there as they are."""


class Item(msgspec.Struct, frozen=True):
    """The outcome of one item; `destinations` only where a job's items are listed."""

    index: int
    status: str
    id: str | None = None
    result: str | None = None
    error_code: str | None = None
    retry_after_seconds: float | None = None
    errors: list[ItemError] = []
    destinations: dict[str, Effect] = {}

    @property
    def detail(self) -> str:
        """Every error of the item in one line, each with the place it points at."""
        return "; ".join(f"{e.pointer}: {e.bare}" if e.pointer else e.bare for e in self.errors)


class Accepted(msgspec.Struct, frozen=True):
    """The response to an import, whether it is decided (207) or not yet (202)."""

    job_id: str


class KeyState(msgspec.Struct, frozen=True):
    """`GET /v1/idempotency-keys/{key}`."""

    state: str
    job_id: str | None = None


class JobProgress(msgspec.Struct, frozen=True):
    items: int | None = None
    processed: int = 0
    not_processed: int | None = None
    items_per_second: float | None = None
    expected_seconds: float | None = None


class Merged(msgspec.Struct, frozen=True):
    """A job's items at one destination over all attempts."""

    total: int = 0
    ok: int = 0
    open: int = 0
    failed: int = 0
    dropped: int = 0
    skipped: int = 0


class Attempt(msgspec.Struct, frozen=True):
    destinations: list[str] = []


class Job(msgspec.Struct, frozen=True):
    """`GET /v1/jobs/{id}`."""

    job_id: str
    state: str
    summary: Summary = msgspec.field(default_factory=lambda: Summary(0, 0, 0, 0))
    results: dict[str, int] = {}
    effects: dict[str, dict[str, int]] = {}
    progress: JobProgress = JobProgress()
    error: JobError | None = None
    waiting: JobError | None = None
    attempts: list[Attempt] = []
    merged: dict[str, Merged] = {}
    not_restored: dict[str, int] = {}
    """Of an undo: by destination, items of which something was left there."""

    @property
    def processed(self) -> int:
        return max(self.progress.processed, self.summary.total)

    @property
    def not_processed(self) -> int:
        """Items that nothing was done with, as far as the job says."""
        if self.progress.not_processed is not None:
            return self.progress.not_processed
        return max(0, (self.progress.items or 0) - self.processed)


class Resend(msgspec.Struct, frozen=True):
    """The response to a retry or a replay; without `job_id` there was nothing to send."""

    job_id: str | None = None
    kind: str = ""
    taken: int = 0
    items: int = 0
    due: int = 0
    remaining: int = 0
    skipped: list[dict[str, Any]] = []
    jobs: list[str] = []
    detail: str = ""


class Destination(msgspec.Struct, frozen=True):
    """Of `GET /v1/destinations`: whether it is reached, or why not."""

    name: str
    state: str
    error_code: str | None = None
    detail: str | None = None
    retry_after_seconds: int = 0


class Problem(msgspec.Struct, frozen=True):
    """RFC 9457 problem details with our `code` and `request_id`."""

    title: str = ""
    detail: str = ""
    code: str = ""
    request_id: str = ""


def read(body: bytes | msgspec.Raw, kind: type[T], url: str) -> T:
    """Decode an answer.

    Raises:
        RefusedError: the answer is not what the API gives; `url` is probably something else.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RefusedError(f"{url} gave an answer that is not Tranche's ({error}); is the address right?") from error


def read_problem(body: bytes) -> Problem:
    """The problem in a refusal; an empty one when a proxy answered with something else."""
    try:
        return msgspec.json.decode(body, type=Problem)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Problem()
