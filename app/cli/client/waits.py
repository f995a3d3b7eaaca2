"""Why what is open at a destination waits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from app.cli.client.api_client import ApiClient
from app.cli.client.errors import RefusedError
from app.cli.client.progress import clean
from app.cli.client.wire import Destination, Destinations, read
from app.vocabulary.states import OPEN_STATES


async def find_waits(api: ApiClient, effects: Mapping[str, Mapping[str, int]], said: Iterable[str] = ()) -> list[str]:
    """A line for each destination where something is open and a reason is known.

    To a key that may not read destinations, `said`: what the jobs themselves say.
    """
    pending = {name for name, counts in effects.items() if any(counts.get(state) for state in OPEN_STATES)}
    if not pending:
        return []
    try:
        listed = read(await api.ask("GET", "/v1/destinations"), Destinations, api.url)
    except RefusedError:
        return [clean(why) for why in said]
    lines = [_describe(destination) for destination in listed.destinations if destination.name in pending]
    return [line for line in lines if line]


def _describe(destination: Destination) -> str:
    name, why = clean(destination.name), clean(destination.detail or "")
    if destination.state == "paused":
        return f"{name} is paused: `tranche destinations resume {name}`"
    if destination.error_code:
        return f"{name} waits {destination.retry_after_seconds:,} s: {clean(destination.error_code)}: {why}"
    return f"{name} waits: {why}" if why else ""
