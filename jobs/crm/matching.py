"""Which of the records that a CRM had before us are those of our records that go there for the first time."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from app.deliveries.before_images import Adoption
from app.vocabulary.states import EffectState, ErrorCode
from jobs.crm.mapping import text
from jobs.crm.port import Outcome, SentRecord

_NAMED: Final = 10
"""Most records of a CRM that a dead letter names."""
GONE: Final = "the record that it was found to be is not there any more; it is looked for again"
NOT_KEPT: Final = (
    "what the record held that it was found to be could not be kept, or another record of yours is becoming it at this "
    "moment; it is looked for again"
)


class Found(msgspec.Struct, frozen=True):
    """A record that a CRM has."""

    remote_id: str
    key: str | None
    """Our key on it, if there is one."""
    values: Mapping[str, Any]
    """What it holds, by its names there."""


class Matches(msgspec.Struct, frozen=True):
    """By record id: the record that it becomes, or why it cannot. Others are new there, or known by our key."""

    adopt: dict[str, Found] = {}
    refused: dict[str, Outcome] = {}


def normal(value: Any) -> str:
    """A value as it is compared: CRMs trim texts, and search without regard to case."""
    return text(value).strip().casefold()


def group(found: Iterable[tuple[Any, Found]]) -> dict[str, list[Found]]:
    """By the value that they were found by."""
    groups: dict[str, list[Found]] = {}
    for value, one in found:
        groups.setdefault(normal(value), []).append(one)
    return groups


def match(records: Sequence[tuple[SentRecord, str]], found: Mapping[str, list[Found]], *, field: str) -> Matches:
    """`records` with the values that they were looked for by. One that is there under our key is that record; what
    another record of ours has is not taken from it, and a record there becomes one of ours."""
    adopt: dict[str, Found] = {}
    refused: dict[str, Outcome] = {}
    taken: set[str] = set()
    for record, value in records:
        there = found.get(normal(value), [])
        if any(one.key == record.record_id for one in there):
            continue
        free = [one for one in there if one.key is None and one.remote_id not in taken]
        if len(free) == 1:
            adopt[record.record_id] = free[0]
            taken.add(free[0].remote_id)
        elif free:
            refused[record.record_id] = refusal(record, _ambiguous(free, field))
    return Matches(adopt, refused)


def _ambiguous(found: Sequence[Found], field: str) -> str:
    ids = ", ".join(one.remote_id for one in found[:_NAMED]) + (", …" if len(found) > _NAMED else "")
    return (
        f"{len(found)} records there have the {field} of this one, and nobody knows which of them it is: {ids}. Merge "
        "them, or write our key into the right one; then replay this dead letter"
    )


def refusal(record: SentRecord, words: str) -> Outcome:
    return Outcome(record.record_id, EffectState.FAILED, ErrorCode.DESTINATION_REJECTED, words)


def later(record: SentRecord, words: str, *, gone: bool = False) -> Outcome:
    """Nothing was written. `gone`: neither can it be, to the record that was known."""
    waits = (EffectState.RETRY, ErrorCode.DESTINATION_UNAVAILABLE, words)
    return Outcome(record.record_id, *waits, remote_id="" if gone else None)


def absent(record: SentRecord) -> Outcome:
    """The outcome of a write to a record that somebody has removed: there is nothing to be released, or the record is
    to be looked for anew."""
    if record.released:
        return Outcome(record.record_id, EffectState.OK, remote_id="")
    return later(record, GONE, gone=True)


def adopted(record: SentRecord, adoption: Adoption) -> SentRecord:
    """The record as it is to be written to the one it was found to be."""
    return msgspec.structs.replace(record, adopted=True, remote_id=adoption.remote_id)
