"""In what a destination differs from Tranche, as a verification found it."""

from enum import StrEnum

import msgspec


class DriftKind(StrEnum):
    MISSING = "missing"
    """It is here, and not there."""
    DIFFERENT = "different"
    """It is there, and fields of it hold something else."""
    UNKNOWN = "unknown"
    """It is there under a key of ours that no record here has, or whose record was removed."""


class FieldDrift(msgspec.Struct, frozen=True):
    """A field that holds something else there; values as text, long ones cut off."""

    name: str
    """As the destination calls it; within nested ones joined by dots."""
    here: str | None
    there: str | None
    """null: it is empty there, or there is no such field."""


class Drift(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a record there differed when it was last read back."""

    kind: DriftKind
    fields: list[FieldDrift] = []
    """Of a record that is `different`, the first of them."""
    more: int = 0
    """Fields that differ beside those."""
    remote_id: str | None = None
    """The destination's own id of the record."""


class Listing(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How far the list of what a destination has was read, as `deliveries.listing` keeps it."""

    after: str | None = None
    """Where it goes on; `None`: at its beginning, or in one that has ended, nowhere."""
    mark: str | None = None
    """A place that was passed, to notice a list that goes round (Brent's algorithm); `steps` pages ago."""
    steps: int = 0
    power: int = 1
    """After so many pages the place that is reached becomes the mark."""
    failed: str = ""
    """Why it could not be read to its end."""

    def move(self, after: str) -> "Listing | None":
        """At the next page; `None`: it was there before."""
        if after in (self.mark, self.after):
            return None
        if self.steps + 1 >= self.power:
            return Listing(after=after, mark=after, power=2 * self.power)
        return Listing(after=after, mark=self.mark, steps=self.steps + 1, power=self.power)
