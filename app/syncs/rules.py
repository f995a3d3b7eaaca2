"""What a sync is about, and how far it has come."""

from typing import Literal

import msgspec

Mode = Literal["missing", "all"]


class Cursor(msgspec.Struct, frozen=True, kw_only=True):
    """As the job keeps it: records are taken type by type, by their ids."""

    destination_id: int
    mode: Mode
    type_ids: list[int]
    """Those that are left, the present one first."""
    after: str = ""
    """The last record of the present type."""

    def moved(self, last: str | None) -> "Cursor | None":
        """After the record `last`, or, without one, at the beginning of the next type; `None`: that was all."""
        if last is not None:
            return msgspec.structs.replace(self, after=last)
        left = self.type_ids[1:]
        return msgspec.structs.replace(self, type_ids=left, after="") if left else None


def cuts(count: int, size: int) -> tuple[list[int], list[int]]:
    """First and last positions, from 1, of deliveries of at most `size` records."""
    lows = list(range(1, count + 1, size))
    return lows, [min(low + size - 1, count) for low in lows]
