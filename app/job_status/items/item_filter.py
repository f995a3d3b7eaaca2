"""What the items of a job look like from outside, and which of them a reader asks for."""

import uuid
from collections.abc import Iterator
from typing import Final

import msgspec

from app.deliveries.drift import Drift
from app.errors import Invalid
from app.job_status.service import LOCAL
from app.vocabulary.outcomes_wire import ItemOutcome
from app.vocabulary.states import EffectState, ItemStatus, Resolution

DRIFT: Final = "drift"
"""As a status: the items in which a destination differs, of a sync that verifies."""
LOST_STATES: Final = frozenset({EffectState.FAILED, EffectState.DEAD})
"""What is over at a destination without the item being there."""


class DestinationOutcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The state of one item at one destination. `version` is the one that this job delivers; a newer one may
    be sent."""

    state: EffectState
    version: int
    attempts: int
    error_code: str | None = None
    detail: str | None = None
    retry_after_seconds: int | None = None
    """Until Tranche itself tries again, or at least could."""
    dead_letter_id: int | None = None
    """The dead letter of an item that is `failed` or `dead` there."""
    resolution: Resolution | None = None
    """How that dead letter ended."""
    replayed_by: uuid.UUID | None = None
    """The job that has sent it again since, and has its outcome."""
    not_restored: list[str] | None = None
    """Of an undo: fields that are left there as they are, because nobody knows what they held before; attributes as
    `attributes.KEY`. `detail` says why. With `email` among them, the whole record was left."""
    drift: Drift | None = None
    """Of a sync that verifies: how the record there differed when it was read back. With `repair`, `state` says whether
    it has been sent since."""


class JobItem(ItemOutcome, omit_defaults=True, kw_only=True):
    """An item's outcome here and at every destination it was to be delivered to."""

    destinations: dict[str, DestinationOutcome]
    dead_letter_id: int | None = None
    """Of an undo: the dead letter of a record that somebody changed since."""
    resolution: Resolution | None = None
    """How that dead letter ended."""
    replayed_by: uuid.UUID | None = None
    """The job that was to restore the record after all."""


class Reason(msgspec.Struct, frozen=True):
    """Why an item did not make it to one place."""

    place: str
    """A destination, or "" for here."""
    status: str
    code: str
    detail: str
    seconds: int = 0


def list_reasons(item: JobItem) -> Iterator[Reason]:
    """Every place that an item did not make it to, this one first."""
    if item.status is not ItemStatus.OK:
        details = [error.detail for error in item.errors or ()]
        seconds = item.retry_after_seconds or 0
        yield Reason("", item.status, item.error_code or "", "; ".join(details), seconds)
    for name, there in item.destinations.items():
        if there.state in LOST_STATES:
            yield Reason(name, there.state, there.error_code or "", there.detail or "")


class Filter(msgspec.Struct, frozen=True):
    """Which items to show; `status` is a local one unless a destination other than "db" is named.

    `lost`: only items that did not make it, here or to a destination; the other conditions narrow that.
    """

    status: str | None = None
    destination: str | None = None
    error_code: str | None = None
    lost: bool = False

    def check(self) -> None:
        """Raises `Invalid`: the status is no word of the place that is asked for."""
        if self.status is None:
            return
        words: list[str] = [*(ItemStatus if self.local else EffectState), DRIFT]
        where = "" if self.local else "at a destination "
        if self.status not in words:
            raise Invalid(f"An item's status {where}is one of: {', '.join(words)}.")
        failures = (ItemStatus.FAILED, ItemStatus.RETRY) if self.local else sorted(LOST_STATES)
        if self.lost and self.status not in failures:
            raise Invalid(
                f"Only failed rows are given back as they were sent; {where or 'here '}that is: "
                f"{', '.join(failures)}. For {self.status!r} ask for JSON or NDJSON, without sent=true."
            )

    @property
    def local(self) -> bool:
        """Whether `status` is the one here."""
        return self.destination is None or self.destination == LOCAL

    @property
    def empty(self) -> bool:
        return not self.lost and self.local and self.status is None and self.error_code is None

    @property
    def drifted(self) -> bool:
        """Only items in which a destination differs."""
        return self.status == DRIFT

    def takes(self, item: JobItem) -> bool:
        if self.lost:
            return any(self.names(reason) for reason in list_reasons(item))
        if self.drifted:
            places = item.destinations.items()
            return any(there.drift is not None and self.destination in (None, name) for name, there in places)
        if self.local:
            codes: set[object] = {item.error_code}
            if self.destination is None:
                codes |= {there.error_code for there in item.destinations.values()}
            status: str = item.status
        else:
            there = item.destinations.get(self.destination or "")
            if there is None:
                return False
            codes, status = set[object]({there.error_code}), there.state
        return (self.status is None or self.status == status) and (self.error_code is None or self.error_code in codes)

    def names(self, reason: Reason) -> bool:
        """Whether this reason is one that is asked for."""
        if self.destination is None:
            fits = self.status is None or not reason.place
        else:
            fits = reason.place == ("" if self.local else self.destination)
        return (
            fits
            and (self.status is None or self.status == reason.status)
            and (self.error_code is None or self.error_code == reason.code)
        )

    @property
    def mark(self) -> bytes | None:
        """What the JSON of an outcome must hold to be taken; None if that alone does not decide it.

        Text cannot hold it by chance: its quotes are escaped.
        """
        if self.local and self.status is not None and not self.drifted:
            return f'"status":"{self.status}"'.encode()
        if self.destination == LOCAL and self.error_code is not None:
            return f'"error_code":{msgspec.json.encode(self.error_code).decode()}'.encode()
        return None
