"""A rate limit, and how settings and the command line write it."""

import re
from typing import Annotated, Final

import msgspec

MOST_QUOTA: Final = 50_000_000
"""So that the square is exact in the numbers of Lua, which are doubles."""
MOST_SECONDS: Final = 86_400

_TEXT: Final = re.compile(r"([0-9]{1,8})/([0-9]{1,5})")


class Limit(msgspec.Struct, frozen=True):
    """So many in so many seconds. They may be used all at once, and come back evenly."""

    quota: Annotated[int, msgspec.Meta(ge=0, le=MOST_QUOTA)]
    """0: no limit, whatever the service's default is."""
    window_seconds: Annotated[int, msgspec.Meta(ge=1, le=MOST_SECONDS)]

    def __str__(self) -> str:
        return f"{self.quota}/{self.window_seconds}" if self.quota else "none"


def parse_limit(text: str) -> Limit | None:
    """`600/60` is 600 in 60 seconds, `0` is no limit.

    Raises:
        ValueError: it is something else.
    """
    if text == "0":
        return None
    found = _TEXT.fullmatch(text)
    if found and 1 <= int(found[1]) <= MOST_QUOTA and 1 <= int(found[2]) <= MOST_SECONDS:
        return Limit(int(found[1]), int(found[2]))
    raise ValueError(
        f"{text!r} is no limit: write how many in how many seconds, like 600/60 (at most {MOST_QUOTA} in at most "
        f"{MOST_SECONDS}), or 0 for no limit"
    )
