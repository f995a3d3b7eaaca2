"""What is limited, and by how much: the limits that are stored with keys and tenants."""

import re
from typing import Annotated, Any, Final, Literal, get_args

import msgspec

MOST_QUOTA: Final = 1_000_000_000
MOST_SECONDS: Final = 86_400

Policy = Literal["items", "requests"]
POLICIES: Final[tuple[Policy, ...]] = get_args(Policy)

_TEXT: Final = re.compile(r"([0-9]{1,10})/([0-9]{1,5})")


class Limit(msgspec.Struct, frozen=True):
    """So many in so many seconds. They may come all at once, or evenly: what was used comes back evenly."""

    quota: Annotated[int, msgspec.Meta(ge=0, le=MOST_QUOTA)]
    """0: no limit, whatever the service's default is."""
    window_seconds: Annotated[int, msgspec.Meta(ge=1, le=MOST_SECONDS)]

    def __str__(self) -> str:
        return f"{self.quota}/{self.window_seconds}" if self.quota else "none"


class Limits(msgspec.Struct, frozen=True, omit_defaults=True):
    """Those that differ from the defaults of the service."""

    items: Limit | None = None
    """Items of imports."""
    requests: Limit | None = None

    def __str__(self) -> str:
        return ", ".join(f"{policy} {limit}" for policy in POLICIES if (limit := getattr(self, policy)))


class LimitsChange(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What is to be different about limits; absent leaves one as it is, null is the default of the service."""

    items: Limit | msgspec.UnsetType | None = msgspec.UNSET
    requests: Limit | msgspec.UnsetType | None = msgspec.UNSET


def parse_limit(text: str) -> Limit | None:
    """A limit as settings and the command line write it: `600/60` is 600 in 60 seconds, `0` is none.

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


def parse_change(texts: tuple[str, ...]) -> LimitsChange:
    """Changes as the command line takes them: `items=60000/60`, `requests=0` (no limit), `items=default`.

    Raises:
        ValueError: one of them is something else.
    """
    found: dict[str, Any] = {}
    for text in texts:
        policy, _, value = text.partition("=")
        if policy not in POLICIES:
            raise ValueError(f"{text!r} is no limit: write {' or '.join(f'{name}=60000/60' for name in POLICIES)}")
        found[policy] = None if value == "default" else parse_limit(value) or Limit(0, 1)
    return LimitsChange(**found)
