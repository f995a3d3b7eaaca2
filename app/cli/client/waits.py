"""Why what is open at a destination waits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from app.cli.client.api_client import ApiClient
from app.cli.client.errors import RefusedError
from app.cli.client.progress import clean
from app.cli.client.wire import read

_OPEN = ("pending", "retry", "unknown")


class _Place(msgspec.Struct, frozen=True):
    name: str
    state: str
    error_code: str | None = None
    detail: str | None = None
    retry_after_seconds: int = 0


class _Destinations(msgspec.Struct, frozen=True):
    destinations: list[_Place]


async def find_waits(
    api: ApiClient, effects: Mapping[str, Mapping[str, int]], said: Iterable[str] = ()
) -> list[str]:
    """A line for each destination where something is open and a reason is known.

    To a key that may not read destinations, `said`: what the jobs themselves say.
    """
    pending = {name for name, counts in effects.items() if any(counts.get(word) for word in _OPEN)}
    if not pending:
        return []
    try:
        listed = read((await api.get("/v1/destinations")).body, _Destinations, api.url)
    except RefusedError:
        return [clean(why) for why in said]
    lines = [_describe(place) for place in listed.destinations if place.name in pending]
    return [line for line in lines if line]


def _describe(place: _Place) -> str:
    name, why = clean(place.name), clean(place.detail or "")
    if place.state == "paused":
        return f"{name} is paused: `tranche destinations resume {name}`"
    if place.error_code:
        return f"{name} waits {place.retry_after_seconds:,} s: {clean(place.error_code)}: {why}"
    return f"{name} waits: {why}" if why else ""
