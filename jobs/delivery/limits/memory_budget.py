"""How many bytes of records a worker holds for its calls: an equal share for each destination that it calls."""

from typing import Final

BUDGET: Final = 64_000_000
"""Bytes, of one worker."""


class MemoryShare:
    def __init__(self, holding: "set[MemoryShare]") -> None:
        """`holding`: the shares of this worker that hold records; kept up to date here."""
        self._holding = holding
        self._held = 0
        self._largest = 1
        """Bytes of the largest recent delivery."""

    @property
    def deliveries(self) -> int:
        """Deliveries as large as the largest recent one for which there is room; at least one."""
        return max(1, self._share // self._largest)

    def reserve(self, size: int) -> bool:
        """Whether there is room for a delivery of so many bytes, to be freed by `release`. There always is for one."""
        self._largest = max(size, self._largest * 9 // 10, 1)
        if self._held and self._held + size > self._share:
            return False
        self._held += size
        self._holding.add(self)
        return True

    def release(self, size: int) -> None:
        self._held -= size
        if not self._held:
            self._holding.discard(self)

    @property
    def _share(self) -> int:
        return BUDGET // (len(self._holding) + (self not in self._holding))
