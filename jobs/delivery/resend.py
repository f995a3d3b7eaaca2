"""Resends calls whose answers were lost, where the CRM cannot be asked what became of them.

A CRM that is `repeatable` promises not to apply a call twice whose `Idempotency-Key` it has seen. The key is that of
the call's contents, so only the very same call may be made again: the same records in the same versions, under the
same options. One that `appends` takes a version as often as it comes, whatever is sent with it.
"""

from collections.abc import Callable
from typing import Final

import msgspec

from app.deliveries.queries import Claim, LostCall
from app.vocabulary.states import STATE_CODE, EffectState, ErrorCode
from jobs.crm.port import Crm, SentRecord
from jobs.delivery.attempt_items import AttemptItems, Batch, batches

_UNKNOWN: Final = STATE_CODE[EffectState.UNKNOWN]
_CHOICE: Final = (
    "the destination cannot be asked whether it arrived, and sending it again might apply it twice: look there; if it "
    "arrived, settle this dead letter, if not, replay it"
)
_CHANGED: Final = (
    "the call cannot be repeated as it was, because other records of it have changed since, and "
) + _CHOICE


def escalate(items: AttemptItems) -> None:
    """Items in doubt become dead letters, which say what can be done."""
    for position in items.within(EffectState.UNKNOWN):
        _dead_letter(items, position, _CHOICE)


def plan(
    items: AttemptItems, claim: Claim, lost: list[LostCall], crm: Crm, event_id: Callable[[list[SentRecord]], str]
) -> list[Batch]:
    """The calls that can be made again. A record that has changed is sent in its present version, like any other; the
    unchanged ones of its call are escalated, or sent without it where the CRM `appends`."""
    resends: list[Batch] = []
    planned: set[int] = set()
    for call in lost:  # the latest first: it is the one that counts
        positions = list(range(len(claim.record_ids))) if call.positions is None else call.positions
        in_doubt = [p for p in positions if p in _in_doubt(items) - planned]
        if not in_doubt:
            continue
        planned.update(in_doubt)
        known = all(claim.record_ids[p] in items.sync_states for p in positions)
        records = [items.record(p) for p in positions] if known else []
        if crm.updates_apart and any(items.record(p).remote_id is None for p in in_doubt):
            # It was a call with new records, of which others may have got their ids since.
            records = [msgspec.structs.replace(record, remote_id=None) for record in records]
        if records and event_id(records) == call.event_id:
            resends.append(Batch(call.asked, records))
        elif crm.appends:
            resends += batches([items.record(p) for p in in_doubt], crm)
        else:
            _split(items, in_doubt, lambda p: items.sync_state(p).tried_version)
    left = [p for p, code in enumerate(claim.states) if code == _UNKNOWN and p not in planned]
    # The worker died: it had sent what was open then, in batches as always, or nothing.
    if crm.appends or all(_as_claimed(items, claim, p) for p in left):
        resends += batches([items.record(p) for p in left if p in _in_doubt(items)], crm)
    else:
        _split(items, [p for p in left if p in _in_doubt(items)], lambda p: claim.versions[p])
    return resends


def _in_doubt(items: AttemptItems) -> set[int]:
    return set(items.within(EffectState.UNKNOWN))


def _as_claimed(items: AttemptItems, claim: Claim, position: int) -> bool:
    in_doubt = items.states[position] is EffectState.UNKNOWN
    return in_doubt and items.sync_state(position).version == claim.versions[position]


def _split(items: AttemptItems, positions: list[int], sent: Callable[[int], int]) -> None:
    """Of a call that cannot be repeated: what has changed since is sent, the rest escalated."""
    for position in positions:
        if items.sync_state(position).version > sent(position):
            items.states[position] = EffectState.RETRY
        else:
            _dead_letter(items, position, _CHANGED)


def _dead_letter(items: AttemptItems, position: int, why: str) -> None:
    before = items.errors.get(str(position))
    detail = f"{before.detail}; {why}" if before is not None else why
    items.dead_letter(position, ErrorCode.OUTCOME_UNKNOWN, detail)
