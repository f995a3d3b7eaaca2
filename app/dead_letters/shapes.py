"""What operations on dead letters and retries take and answer."""

import uuid
from datetime import datetime
from typing import Annotated, Any, Final

import msgspec

from app.dead_letters import views
from app.dead_letters.queries import Filter
from app.dead_letters.replay import Taken
from app.dead_letters.selection import MOST_IDS, Skipped
from app.errors import Invalid
from app.http.cursors import NextCursor
from app.http.parameters import MOST
from app.vocabulary.outcomes_wire import job_urls
from app.vocabulary.states import EffectState, JobKind, JobState, Resolution

RESOLUTIONS: Final = ("open", *Resolution, "any")

DeadLetterId = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
Reason = Annotated[str, msgspec.Meta(min_length=1, max_length=1_000)]


class Choice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One of `ids`, `filter` and `all`."""

    ids: Annotated[list[DeadLetterId], msgspec.Meta(min_length=1, max_length=MOST_IDS)] | None = None
    filter: Filter | None = None
    all: bool = False
    """Every open dead letter of deliveries: instead of a condition."""


class ReplayRequest(Choice, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Dead letters to be sent again, or whose records are to be restored after all."""

    preview: bool = False
    """Show what would be claimed, and change nothing."""
    rate: Annotated[float, msgspec.Meta(ge=1, le=1_000_000)] | None = None
    """Items a second that become due at a destination; null: the setting `replay_rate`."""


class DropRequest(Choice, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Dead letters that are not worth sending, or whose records stay as they are."""

    reason: Reason


class SettleRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Dead letters in doubt whose records have arrived, as an operator has seen."""

    ids: Annotated[list[DeadLetterId], msgspec.Meta(min_length=1, max_length=MOST_IDS)]
    reason: Reason


class DeadLetterQuery(Filter, frozen=True, kw_only=True):
    resolution: Annotated[str, msgspec.Meta(extra_json_schema={"enum": [str(r) for r in RESOLUTIONS]})] = "open"
    """How they ended."""
    limit: Annotated[int, msgspec.Meta(ge=1, le=MOST)] = 100
    """Most entries of one page."""
    cursor: str | None = None
    """`next_cursor` of the page before; without it, the first page."""


class DeadLetterList(msgspec.Struct):
    """A page of dead letters, newest first. A filtered page may hold fewer than `limit` and still have a next one."""

    dead_letters: list[views.DeadLetter]
    next_cursor: NextCursor


class ClusterList(msgspec.Struct):
    """Open dead letters by destination and code, the most frequent first."""

    clusters: list[views.Cluster]
    total: int


class PreviewAnswer(msgspec.Struct):
    """What a replay would take now. One job takes `most` at a time."""

    would_take: int
    most: int
    clusters: list[views.Cluster]
    skipped: list[Skipped]


class AttemptAnswer(msgspec.Struct, kw_only=True):
    """The job that sends again what failed."""

    job_id: uuid.UUID
    kind: JobKind
    state: JobState
    root_job_id: uuid.UUID
    taken: int
    """Dead letters that this request took; 0: an attempt that is under way has them, or an undo goes on."""
    items: int
    """Of the job: one for each record."""
    due: int
    """Items that waited for their next attempt, and wait no more."""
    remaining: int
    """Open dead letters that are left, because one job takes so many at a time: repeat the request."""
    skipped: list[Skipped]
    status_url: str
    items_url: str
    events_url: str
    cancel_url: str
    effects: dict[str, EffectState]


class ReplayAnswer(AttemptAnswer, kw_only=True):
    """The job that sends the dead letters again, or restores their records (of the kind `undo`)."""

    jobs: list[uuid.UUID]
    """Jobs that have dead letters of this selection, also earlier ones."""


def describe(taken: Taken) -> dict[str, Any]:
    """The fields of an `AttemptAnswer`."""
    fields = msgspec.structs.asdict(taken)
    del fields["to_notify"], fields["jobs"]
    return fields | job_urls(taken.job_id)


def check_filter(wanted: Filter) -> Filter:
    """Raises `Invalid`: a condition that nothing stored can meet, or PostgreSQL cannot read."""
    for name in ("destination", "record_id"):
        if "\0" in (getattr(wanted, name) or ""):
            raise Invalid(f"{name} holds a NUL character.")
    before: datetime | None = wanted.created_before
    if before is not None and (before.tzinfo is None or not 1 < before.year < 9999):
        raise Invalid("created_before must be an RFC 3339 timestamp with a UTC offset, as 2026-01-15T09:30:00Z.")
    return wanted
