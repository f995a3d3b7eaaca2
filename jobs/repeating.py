"""What becomes of an unknown item where the CRM cannot be asked for it.

A CRM that `repeatable`s promises that a call with an `Idempotency-Key` it has seen is not done again. The key stands
for the call's contents, so only the very same call may be made again: the same contacts in the same versions,
under the same options.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from app.db.delivering import Asked, Claim, LostCall
from app.domain.outcomes import STATE_LETTER, EffectState, ErrorCode
from jobs.chunk import Chunk
from jobs.crm.port import Contact

_UNKNOWN: Final = STATE_LETTER[EffectState.UNKNOWN]
_CHOICE: Final = (
    "the destination cannot be asked whether it arrived, and sending it again might do it twice: look there; if it "
    "arrived settle this letter as delivered, if not replay it"
)
_BROKEN: Final = (
    "the call cannot be repeated as it was, because other contacts of it have changed since, and "
) + _CHOICE


class Repeat(msgspec.Struct, frozen=True):
    """A call to be made once more."""

    asked: Asked
    contacts: list[Contact]


def leave_to_humans(chunk: Chunk) -> None:
    """Unknown items become dead, and their letters tell what can be done."""
    for position in chunk.within(EffectState.UNKNOWN):
        _bury(chunk, position, _CHOICE)


def plan(
    chunk: Chunk, claim: Claim, lost: list[LostCall], size: int, event_id: Callable[[list[Contact]], str]
) -> list[Repeat]:
    """The calls that can be made again. A contact that has changed is sent as it stands now, like any other; the
    unchanged ones of its call are left to humans."""
    repeats: list[Repeat] = []
    planned: set[int] = set()
    for call in lost:  # the latest first: it is the one that counts
        positions = list(range(len(claim.contact_ids))) if call.positions is None else call.positions
        unknown = [p for p in positions if p in _unknown(chunk) - planned]
        if not unknown:
            continue
        planned.update(unknown)
        known = all(claim.contact_ids[p] in chunk.standing for p in positions)
        contacts = [chunk.contact(p) for p in positions] if known else []
        if contacts and event_id(contacts) == call.event_id:
            repeats.append(Repeat(call.asked, contacts))
        else:
            _part(chunk, unknown, lambda p: chunk.standing_of(p).tried_version)
    left = [p for p, letter in enumerate(claim.states) if letter == _UNKNOWN and p not in planned]
    # The worker died: it had sent what was open then, cut as it always is, or nothing.
    if all(_as_claimed(chunk, claim, p) for p in left):
        repeats += _cut(chunk, left, size)
    else:
        _part(chunk, [p for p in left if p in _unknown(chunk)], lambda p: claim.versions[p])
    return repeats


def _unknown(chunk: Chunk) -> set[int]:
    return set(chunk.within(EffectState.UNKNOWN))


def _as_claimed(chunk: Chunk, claim: Claim, position: int) -> bool:
    unknown = chunk.states[position] is EffectState.UNKNOWN
    return unknown and chunk.standing_of(position).version == claim.versions[position]


def _cut(chunk: Chunk, positions: list[int], size: int) -> list[Repeat]:
    kinds: tuple[tuple[Asked, bool], ...] = (("push", False), ("archive", True))
    repeats: list[Repeat] = []
    for asked, deleted in kinds:
        due = [chunk.contact(p) for p in positions if chunk.standing_of(p).deleted is deleted]
        repeats += [Repeat(asked, due[start : start + size]) for start in range(0, len(due), size)]
    return repeats


def _part(chunk: Chunk, positions: list[int], sent: Callable[[int], int]) -> None:
    """Of a call that cannot be repeated."""
    for position in positions:
        if chunk.standing_of(position).version > sent(position):
            chunk.states[position] = EffectState.RETRY
        else:
            _bury(chunk, position, _BROKEN)


def _bury(chunk: Chunk, position: int, why: str) -> None:
    before = chunk.errors.get(str(position))
    detail = f"{before.detail}; {why}" if before is not None else why
    chunk.bury(position, ErrorCode.OUTCOME_UNKNOWN, detail)
