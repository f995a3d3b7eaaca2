"""The closed sets of words that the API, the tables, the log and the command line share.

`docs/states.md` draws how they follow one another. A published word is never removed.
"""

from enum import StrEnum
from typing import Final


class ItemStatus(StrEnum):
    """The local outcome of one item: what the client has to do about it."""

    OK = "ok"
    FAILED = "failed"
    """The same item will fail again."""
    RETRY = "retry"
    """Nothing was decided; send it again, not before `retry_after_seconds`."""


class Result(StrEnum):
    """What an `ok` item did to the record."""

    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    DELETED = "deleted"
    SUPERSEDED = "superseded"
    """A newer `source_version`, or a later item of the same batch, is stored already."""


class WarningCode(StrEnum):
    """What was noticed in a row of a file that is no error; published ones are never removed."""

    TRIMMED = "TRIMMED"
    """White space around a cell was left out."""
    FORMULA = "FORMULA"
    """A spreadsheet's formula (`="007"`) is in the place of a value."""
    NUMBER_FORMAT = "NUMBER_FORMAT"
    """A spreadsheet has written a number in scientific notation (`1.0E+05`)."""


class ErrorCode(StrEnum):
    """Why an item is not `ok`, here or at a destination. Codes are never removed."""

    MISSING_FIELD = "MISSING_FIELD"
    INVALID_FIELD = "INVALID_FIELD"
    UNKNOWN_FIELD = "UNKNOWN_FIELD"
    INVALID_EMAIL = "INVALID_EMAIL"
    INVALID_PHONE = "INVALID_PHONE"
    ITEM_TOO_LARGE = "ITEM_TOO_LARGE"
    DUPLICATE_IN_BATCH = "DUPLICATE_IN_BATCH"
    VERSION_CONFLICT = "VERSION_CONFLICT"
    ATOMIC_ABORTED = "ATOMIC_ABORTED"
    RATE_LIMIT = "RATE_LIMIT"
    LOCK_TIMEOUT = "LOCK_TIMEOUT"
    OVERLOADED = "OVERLOADED"
    INTERNAL = "INTERNAL"
    DESTINATION_REJECTED = "DESTINATION_REJECTED"
    DESTINATION_RATE_LIMIT = "DESTINATION_RATE_LIMIT"
    DESTINATION_UNAVAILABLE = "DESTINATION_UNAVAILABLE"
    CIRCUIT_OPEN = "CIRCUIT_OPEN"
    OUTCOME_UNKNOWN = "OUTCOME_UNKNOWN"
    RETRIES_EXHAUSTED = "RETRIES_EXHAUSTED"


SENTENCES: Final[dict[ErrorCode, str]] = {
    ErrorCode.DESTINATION_REJECTED: "The destination refused it; the dead letter has the destination's own words.",
    ErrorCode.DESTINATION_RATE_LIMIT: "The destination limits how often it may be called.",
    ErrorCode.DESTINATION_UNAVAILABLE: "The destination could not be reached, or could not be used.",
    ErrorCode.CIRCUIT_OPEN: "Calls to the destination are suspended.",
    ErrorCode.OUTCOME_UNKNOWN: "It was sent, but it is not known whether it arrived; an operator must look there.",
    ErrorCode.RETRIES_EXHAUSTED: "The attempts or the time ran out; the dead letter has the result of the "
    "last attempt.",
    ErrorCode.VERSION_CONFLICT: "Somebody changed the record since, so the undo left it as it is; the dead letter says "
    "who did.",
    ErrorCode.INTERNAL: "An internal error of Tranche; the worker's log has the details.",
}
"""What webhooks say of an item that did not arrive, or was not restored: our own words, never those of a CRM, which may
repeat what it was sent."""
OTHER_SENTENCE: Final = "It did not arrive; the dead letter says why."


class EffectState(StrEnum):
    """The state of one item at one destination."""

    PENDING = "pending"
    """Not tried yet, or postponed without an attempt (open circuit, 429, pause)."""
    OK = "ok"
    """The destination holds this version or a newer one."""
    RETRY = "retry"
    """An attempt failed for a passing reason; Tranche tries again by itself."""
    FAILED = "failed"
    """The destination refused the item for good; a dead letter has the reason."""
    UNKNOWN = "unknown"
    """Sent, but the answer was lost; settled by reading the destination back."""
    DEAD = "dead"
    """Attempts or time ran out; a dead letter waits for an operator."""
    SKIPPED = "skipped"
    """Nothing was sent: the destination was removed before the first attempt, the request was a dry run, or a
    verification left it as it is."""


OPEN_STATES: Final = frozenset({EffectState.PENDING, EffectState.RETRY, EffectState.UNKNOWN})
"""The states that Tranche itself will still change."""

STATE_CODE: Final = {
    EffectState.PENDING: "p",
    EffectState.OK: "o",
    EffectState.RETRY: "r",
    EffectState.FAILED: "f",
    EffectState.UNKNOWN: "u",
    EffectState.DEAD: "d",
    EffectState.SKIPPED: "s",
}
"""One character an item: the column `deliveries.states` is a string of them, in item order."""

CODE_STATE: Final = {code: state for state, code in STATE_CODE.items()}


class JobState(StrEnum):
    RECEIVING = "receiving"
    QUEUED = "queued"
    RUNNING = "running"
    SYNCING = "syncing"
    """Every local outcome is decided; effects at destinations are still open."""
    COMPLETED = "completed"
    COMPLETED_WITH_FAILURES = "completed_with_failures"
    FAILED = "failed"
    CANCELED = "canceled"


UNDECIDED_JOB_STATES: Final = frozenset({JobState.RECEIVING, JobState.QUEUED, JobState.RUNNING})
FINISHED_JOB_STATES: Final = frozenset(
    {JobState.COMPLETED, JobState.COMPLETED_WITH_FAILURES, JobState.FAILED, JobState.CANCELED}
)


class JobKind(StrEnum):
    IMPORT = "import"
    RETRY = "retry"
    UNDO = "undo"
    REPLAY = "replay"
    ERASE = "erase"
    SYNC = "sync"


class Consistency(StrEnum):
    """What a batch asks for where one destination refuses what the others take."""

    NONE = "none"
    """Destinations are independent."""
    ALL_DESTINATIONS = "all_destinations"
    """An item that one destination finally refuses is taken back at the others, and here."""


class Step(StrEnum):
    """What the staged chunks of a queued or running import need next, in this order."""

    CHECK = "check"
    """Does any id appear in the file twice?"""
    COLLECT = "collect"
    """Some do: the items that have them are read."""
    SETTLE = "settle"
    """What these items mean together is decided."""
    APPLY = "apply"
    """Items go to records, a chunk a transaction."""
    ATOMIC = "atomic"
    """All items go to records in one transaction, or none does."""
    RESOLVE = "resolve"
    """Repeated items get their outcome from the one that was applied for them."""


class DeadLetterKind(StrEnum):
    """What a dead letter is about."""

    DELIVERY = "delivery"
    """An item that is no longer tried at a destination."""
    UNDO = "undo"
    """A record that an undo left as it is, because somebody changed it since."""


class Resolution(StrEnum):
    """How a dead letter came to its end."""

    REPLAYED = "replayed"
    """It is sent again by the job that the dead letter names; if that fails, there is a new dead letter in the
    same chain."""
    DELIVERED = "delivered"
    """An operator states that the destination has it."""
    DROPPED = "dropped"
    """An operator states that it is not worth sending."""
    DELETED = "deleted"
    SUPERSEDED = "superseded"
    """A newer version of the record has arrived there since."""


class CircuitState(StrEnum):
    """Whether calls to a destination go out."""

    CLOSED = "closed"
    OPEN = "open"
    """Calls are held back."""
    HALF_OPEN = "half_open"
    """A few calls test whether it works again."""


class SagaState(StrEnum):
    RUNNING = "running"
    COMPENSATING = "compensating"
    """A step failed; those before it are undone, the last one first."""
    DONE = "done"
    COMPENSATED = "compensated"
    FAILED = "failed"
    """Neither forward nor back: it waits for an operator."""


class EventType(StrEnum):
    """The events that webhook endpoints can receive."""

    JOB_FINISHED = "job.finished"
    ITEM_DEAD = "item.dead"
    CIRCUIT_OPENED = "circuit.opened"
    CIRCUIT_CLOSED = "circuit.closed"
    WEBHOOK_DISABLED = "webhook.disabled"
