"""`tranche webhooks add | list | show | change | enable | disable | rotate | test | messages | replay | remove`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

import msgspec
import rich_click as click

from app.cli.client.api_client import ApiClient
from app.cli.client.connection import (
    connection_options,
    json_option,
    lines_option,
    open_api,
    run_command,
    take_some,
)
from app.cli.client.progress import clean, counted
from app.domain.outcomes import EventType
from app.domain.webhooks import MessageState, Policy

_BASE: Final = "/v1/webhook-endpoints"
_TEST_SECONDS: Final = 10.0
_EVENTS: Final = [event.value for event in EventType]
_id_argument: Final = click.argument("endpoint", type=click.IntRange(min=1))

_policy_option: Final = click.option(
    "--policy",
    type=click.Choice([policy.value for policy in Policy]),
    help="short: five retries in 75 minutes; standard: all but 2xx and 410 is tried again, over three days.",
)

Work = Callable[[ApiClient], Coroutine[Any, Any, int]]


@click.group()
def webhooks() -> None:
    """Endpoints that receive signed events; needs a key with the scope admin."""


def _run(
    command: str, url: str | None, key: str | None, as_json: bool, work: Work, *, repeatable: bool = True
) -> None:
    async def connected() -> int:
        async with open_api(url, key, repeatable=repeatable) as api:
            return await work(api)

    context = click.get_current_context()
    assert context is not None
    context.exit(run_command(f"webhooks {command}", connected, as_json=as_json))


async def _ask(api: ApiClient, method: str, path: str, body: Any = None) -> Any:
    answer = await api.ask(method, _BASE + path, body)
    return msgspec.json.decode(answer) if answer else {}


def _wanted(**given: Any) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value}


def _print(told: Any, line: str, as_json: bool) -> None:
    click.echo(msgspec.json.encode(told).decode() if as_json else clean(line))


def _endpoint_line(told: dict[str, Any]) -> str:
    why = f"  {told['detail']}" if told.get("detail") else ""
    if told.get("failing_since"):
        why += f"  failing since {told['failing_since']}"
    return (
        f"{told['endpoint_id']:>6}  {told['state']:8}  {told['policy']:8}  {told['url']}  "
        f"{','.join(told['events'])}{why}"
    )


def _message_line(told: dict[str, Any]) -> str:
    last = told["attempts"][-1] if told["attempts"] else None
    tail = f"  {last['milliseconds']} ms  {last['detail']}" if last else ""
    return (
        f"{told['message_id']:>8}  {told['state']:7}  {told['type']:15}  {told['created_at']}  "
        f"{told['event_id']}  attempts {told['attempt']}{tail}"
    )


@webhooks.command()
@click.argument("address", metavar="URL")
@click.option(
    "--event",
    "events",
    multiple=True,
    type=click.Choice(_EVENTS),
    help="Receive this event (repeatable).  [default: all]",
)
@_policy_option
@json_option
@connection_options
def add(
    address: str,
    events: tuple[str, ...],
    policy: str | None,
    as_json: bool,
    url: str | None,
    key: str | None,
) -> None:
    """Send future events to URL. Prints the secret, which cannot be read again."""

    async def work(api: ApiClient) -> int:
        made = await _ask(api, "POST", "", {"url": address} | _wanted(events=list(events), policy=policy))
        _print(made, f"added endpoint {made['endpoint_id']} with the secret {made['secret']}", as_json)
        return 0

    _run("add", url, key, as_json, work, repeatable=False)


@webhooks.command("list")
@lines_option
@connection_options
def list_(as_json: bool, url: str | None, key: str | None) -> None:
    """All endpoints, and why one is disabled."""

    async def work(api: ApiClient) -> int:
        if not as_json:
            click.echo(f"{'id':>6}  {'state':8}  {'policy':8}  URL  events")
        for told in (await _ask(api, "GET", ""))["endpoints"]:
            _print(told, _endpoint_line(told), as_json)
        return 0

    _run("list", url, key, as_json, work)


@webhooks.command()
@_id_argument
@json_option
@connection_options
def show(endpoint: int, as_json: bool, url: str | None, key: str | None) -> None:
    """One endpoint."""

    async def work(api: ApiClient) -> int:
        told = await _ask(api, "GET", f"/{endpoint}")
        _print(told, _endpoint_line(told), as_json)
        return 0

    _run("show", url, key, as_json, work)


@webhooks.command()
@_id_argument
@click.option("--address", metavar="URL", help="Call this URL from now on.")
@click.option(
    "--event",
    "events",
    multiple=True,
    type=click.Choice(_EVENTS),
    help="Receive only this event (repeatable).",
)
@_policy_option
@json_option
@connection_options
def change(
    endpoint: int,
    address: str | None,
    events: tuple[str, ...],
    policy: str | None,
    as_json: bool,
    url: str | None,
    key: str | None,
) -> None:
    """Change an endpoint's URL, events or policy; what is left out stays as it is."""
    wanted = _wanted(url=address, events=list(events), policy=policy)
    if not wanted:
        raise click.UsageError("say what to change: --address, --event or --policy")

    async def work(api: ApiClient) -> int:
        told = await _ask(api, "PATCH", f"/{endpoint}", wanted)
        _print(told, _endpoint_line(told), as_json)
        return 0

    _run("change", url, key, as_json, work)


def _set_state(endpoint: int, state: str, word: str, as_json: bool, url: str | None, key: str | None) -> None:
    async def work(api: ApiClient) -> int:
        told = await _ask(api, "PATCH", f"/{endpoint}", {"state": state})
        _print(told, _endpoint_line(told), as_json)
        return 0

    _run(word, url, key, as_json, work)


@webhooks.command()
@_id_argument
@json_option
@connection_options
def enable(endpoint: int, as_json: bool, url: str | None, key: str | None) -> None:
    """Send events to an endpoint again; see also: replay."""
    _set_state(endpoint, "active", "enable", as_json, url, key)


@webhooks.command()
@_id_argument
@json_option
@connection_options
def disable(endpoint: int, as_json: bool, url: str | None, key: str | None) -> None:
    """Send it nothing; waiting messages are marked failed."""
    _set_state(endpoint, "disabled", "disable", as_json, url, key)


@webhooks.command()
@_id_argument
@json_option
@connection_options
def remove(endpoint: int, as_json: bool, url: str | None, key: str | None) -> None:
    """Remove an endpoint."""

    async def work(api: ApiClient) -> int:
        await _ask(api, "DELETE", f"/{endpoint}")
        _print({"endpoint_id": endpoint, "state": "removed"}, f"removed endpoint {endpoint}", as_json)
        return 0

    _run("remove", url, key, as_json, work)


@webhooks.command()
@_id_argument
@click.option(
    "--keep",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="The secret before signs as well for so long.  [default: TRANCHE_WEBHOOK_ROTATION of the service]",
)
@json_option
@connection_options
def rotate(endpoint: int, keep: float | None, as_json: bool, url: str | None, key: str | None) -> None:
    """Give an endpoint a new secret."""

    async def work(api: ApiClient) -> int:
        made = await _ask(api, "POST", f"/{endpoint}/rotate", {"keep_seconds": keep})
        until = made["previous_until"]
        tail = f"; the one before signs as well until {until}" if until else "; the one before is no good"
        _print(made, f"the secret of endpoint {endpoint} is {made['secret']}{tail}", as_json)
        return 0

    _run("rotate", url, key, as_json, work, repeatable=False)


@webhooks.command("test")
@_id_argument
@json_option
@connection_options
def test_(endpoint: int, as_json: bool, url: str | None, key: str | None) -> None:
    """Send a test event and wait for its first attempt; exit code 1 if it failed."""

    async def work(api: ApiClient) -> int:
        told = await _ask(api, "POST", f"/{endpoint}/test")
        until = asyncio.get_running_loop().time() + _TEST_SECONDS
        while not told["attempts"] and asyncio.get_running_loop().time() < until:
            await asyncio.sleep(0.2)
            told = await _ask(api, "GET", f"/{endpoint}/messages/{told['message_id']}")
        _print(told, _message_line(told), as_json)
        return 0 if told["state"] == "ok" else 1

    _run("test", url, key, as_json, work, repeatable=False)


@webhooks.command()
@_id_argument
@click.option("--state", type=click.Choice([s.value for s in MessageState]), help="Only those in this state.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="Most to show.")
@lines_option
@connection_options
def messages(
    endpoint: int, state: str | None, limit: int, as_json: bool, url: str | None, key: str | None
) -> None:
    """Messages to an endpoint, newest first, with their attempts."""

    async def work(api: ApiClient) -> int:
        found = api.list(f"{_BASE}/{endpoint}/messages", "messages", {"state": state} if state else {})
        async for raw in take_some(found, limit):
            told = msgspec.json.decode(raw)
            _print(told, _message_line(told), as_json)
        return 0

    _run("messages", url, key, as_json, work)


@webhooks.command()
@_id_argument
@click.option("--message", type=click.IntRange(min=1), help="This one, whatever its state.")
@click.option("--state", type=click.Choice(["dead", "failed"]), default="dead", show_default=True)
@json_option
@connection_options
def replay(
    endpoint: int, message: int | None, state: str, as_json: bool, url: str | None, key: str | None
) -> None:
    """Send messages again that did not arrive, under the same event ids."""

    async def work(api: ApiClient) -> int:
        if message is not None:
            told = await _ask(api, "POST", f"/{endpoint}/messages/{message}/replay")
            _print(told, _message_line(told), as_json)
            return 0
        total = 0
        while count := (await _ask(api, "POST", f"/{endpoint}/replay", {"state": state}))["replayed"]:
            total += count
            if count < 1_000:
                break
        _print({"replayed": total}, f"sending {counted(total, 'message')} again", as_json)
        return 0

    _run("replay", url, key, as_json, work)
