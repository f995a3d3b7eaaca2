"""What a sync is about, and how far it has come."""

from typing import Literal

import msgspec

Mode = Literal["missing", "all", "verify"]


class Cursor(msgspec.Struct, frozen=True, kw_only=True):
    """As the job keeps it: records are taken type by type, by their ids."""

    destination_id: int
    mode: Mode
    type_ids: list[int]
    """Those that are left, the present one first."""
    after: str = ""
    """The last record of the present type."""
    repair: bool = False
    """What differs is sent (`verify`)."""
    listing: bool = False
    """The records of the present type were all taken, and what the destination has of it is being listed."""

    def past(self, last: str) -> "Cursor":
        """After this record."""
        return msgspec.structs.replace(self, after=last)

    def next_type(self) -> "Cursor | None":
        """At the beginning of the next type; `None`: that was all."""
        left = self.type_ids[1:]
        return msgspec.structs.replace(self, type_ids=left, after="", listing=False) if left else None

    def list_there(self) -> "Cursor":
        """At the list of what is there."""
        return msgspec.structs.replace(self, listing=True)


def cuts(count: int, size: int) -> tuple[list[int], list[int]]:
    """First and last positions, from 1, of deliveries of at most `size` records."""
    lows = list(range(1, count + 1, size))
    return lows, [min(low + size - 1, count) for low in lows]
