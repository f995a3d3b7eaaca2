"""When an access token is renewed. Times in seconds since 1970."""

from typing import Final

from app.destinations.credentials import Grant

_EARLY: Final = 60.0
_EARLY_SHARE: Final = 0.05
"""Of its time, for tokens that live for minutes. A call that is still under way then meets a 401, and is made again."""


def renew_at(grant: Grant) -> float | None:
    """From then on another one is asked for, so that no call starts with a token that ends meanwhile. `None`: nobody
    knows when it expires; an answer of 401 shows it."""
    if grant.expires_at is None:
        return None
    return grant.expires_at - min(_EARLY, _EARLY_SHARE * max(grant.expires_at - grant.issued_at, 0.0))


def is_due(grant: Grant | None, now: float) -> bool:
    if grant is None:
        return True
    at = renew_at(grant)
    return at is not None and now >= at


def is_over(grant: Grant | None, now: float) -> bool:
    """It can be used no more."""
    return grant is None or (grant.expires_at is not None and now >= grant.expires_at)
