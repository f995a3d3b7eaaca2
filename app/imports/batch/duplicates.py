"""What the items of one batch mean together: each record is written at most once, in one order."""

import hashlib
from collections.abc import Iterable
from operator import attrgetter
from typing import Any, Final

import msgspec

from app.resources.decoding import Accepted, Rejected
from app.resources.documents import ALL_ATTRIBUTES
from app.vocabulary.outcomes_wire import FieldError
from app.vocabulary.states import ErrorCode

_record_id: Final = attrgetter("record_id")
_index: Final = attrgetter("index")
_SHOWN: Final = 10
"""Other indexes named in a message: a thousand items of one id would name each other a million times."""

_sorted_json = msgspec.json.Encoder(order="sorted").encode


class Batch(msgspec.Struct, frozen=True):
    """The items to write and what becomes of the others; every index of the request is in one of the four.

    `applied` has unique ids in code point order, which is the order of PostgreSQL's collation "C": writers
    that all lock rows in this order cannot deadlock. `followers` and `superseded` map the index of an item to
    that of the applied one that represents it: an equal one, or a later one (`last_wins`).
    """

    applied: list[Accepted]
    followers: dict[int, int]
    superseded: dict[int, int]
    rejected: list[Rejected]
    """In request order."""


def resolve_duplicates(rows: Iterable[Accepted | Rejected], *, last_wins: bool) -> Batch:
    """Settle items of one id: equal ones are applied once, differing ones fail unless the last wins."""
    accepted: list[Accepted] = []
    rejected: list[Rejected] = []
    for row in rows:
        if type(row) is Accepted:
            accepted.append(row)
        else:
            rejected.append(row)  # type: ignore[arg-type]  # mypy does not narrow the else of `type() is`
    accepted.sort(key=_record_id)  # stable: equal ids stay in request order
    batch = Batch(accepted, {}, {}, rejected)
    if len({row.record_id for row in accepted}) == len(accepted):
        return batch
    return _resolve(accepted, rejected, last_wins=last_wins)


def _resolve(accepted: list[Accepted], rejected: list[Rejected], *, last_wins: bool) -> Batch:
    groups: dict[str, list[Accepted]] = {}
    for row in accepted:
        groups.setdefault(row.record_id, []).append(row)
    batch = Batch([], {}, {}, list(rejected))
    for group in groups.values():
        first, last = group[0], group[-1]
        if len(group) == 1:
            batch.applied.append(first)
        elif len({_content(row) for row in group}) == 1:
            batch.applied.append(first)
            batch.followers.update((row.index, first.index) for row in group[1:])
        elif last_wins:
            batch.applied.append(last)
            batch.superseded.update((row.index, last.index) for row in group[:-1])
        else:
            batch.rejected.extend(_reject(row, group) for row in group)
    batch.rejected.sort(key=_index)
    return batch


def _content(row: Accepted) -> tuple[Any, ...]:
    """What two equal items share, whatever the order of their members; `1` and `true` differ, as in JSON."""
    document = _sorted_json(msgspec.json.decode(row.document))
    said = document, ALL_ATTRIBUTES in (row.cleared or ()), row.source_version, row.if_version
    return (*said, True) if row.deleted else said


def digest(row: Accepted) -> bytes:
    """Equal for two items of one id that are equal."""
    return hashlib.blake2b(msgspec.msgpack.encode(_content(row)), digest_size=16).digest()


def _reject(row: Accepted, group: list[Accepted]) -> Rejected:
    others = [other.index for other in group[: _SHOWN + 1] if other is not row]
    return reject(row.index, row.record_id, others, members=len(group))


def reject(index: int, record_id: str | None, others: Iterable[int], *, members: int) -> Rejected:
    """One of `members` items that have one id and differ; `others` are some of them."""
    shown = [str(other) for other in others if other != index][:_SHOWN]
    more = members - 1 - len(shown)
    named = ", ".join(shown) + (f" and {more} more" if more else "")
    subject = f"items {named} of this batch have" if members > 2 else f"item {named} of this batch has"
    detail = f"{subject} the same id, with other content; send one of them, or use on_duplicate=last_wins"
    return Rejected(index, record_id, [FieldError(ErrorCode.DUPLICATE_IN_BATCH, "/id", detail)])
