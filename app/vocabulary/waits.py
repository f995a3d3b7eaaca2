"""Lists of waits, as settings write them."""

from typing import Final

_MOST_WAITS: Final = 30
_LONGEST_WAIT: Final = 604_800.0


def parse_waits(text: str) -> tuple[float, ...]:
    """Seconds before the second and every further attempt, separated by commas; empty: there is only one.
    Raises `ValueError`: a part is no number of seconds, in words for the operator."""
    waits = tuple(float(part) for part in text.split(",") if part.strip())
    if len(waits) > _MOST_WAITS or any(not 0 <= wait <= _LONGEST_WAIT for wait in waits):
        raise ValueError(f"at most {_MOST_WAITS} waits from 0 to {_LONGEST_WAIT:.0f} seconds")
    return waits
