"""`tranche webhooks add | list | show | change | enable | disable | rotate | test | messages | replay | remove`."""

from __future__ import annotations

from typing import Any, Final

import msgspec
import rich_click as click

from app.cli.api_command import api_command, limit_option, options
from app.cli.client.api_client import ApiClient
from app.cli.client.clock import ask_until
from app.cli.client.errors import UsageError
from app.cli.client.progress import counted
from app.cli.output import show, take_some
from app.vocabulary.states import EventType
from app.webhooks.rules import MessageState, Policy

_BASE: Final = "/v1/webhook-endpoints"
_TEST_SECONDS: Final = 10.0
_id_argument: Final = click.argument("endpoint", type=click.IntRange(min=1))
_choice_options: Final = options(
    click.option(
        "--event",
        "events",
        multiple=True,
        type=click.Choice([event.value for event in EventType]),
        help="Receive only this event (repeatable); a new endpoint without it receives all.",
    ),
    click.option(
        "--policy",
        type=click.Choice([policy.value for policy in Policy]),
        help="short: five retries in 75 minutes; standard: all but 2xx and 410 is tried again, over three days.",
    ),
)


@click.group()
def webhooks() -> None:
    """Endpoints that receive signed events; needs a key with the scope admin."""


async def _ask(api: ApiClient, method: str, path: str, body: Any = None) -> Any:
    answer = await api.ask(method, _BASE + path, body)
    return msgspec.json.decode(answer) if answer else {}


def _wanted(**given: Any) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value}


def _endpoint_line(found: dict[str, Any]) -> str:
    why = f"  {found['detail']}" if found.get("detail") else ""
    if found.get("failing_since"):
        why += f"  failing since {found['failing_since']}"
    return (
        f"{found['endpoint_id']:>6}  {found['state']:8}  {found['policy']:8}  {found['url']}  "
        f"{','.join(found['events'])}{why}"
    )


def _message_line(found: dict[str, Any]) -> str:
    last = found["attempts"][-1] if found["attempts"] else None
    tail = f"  {last['milliseconds']} ms  {last['detail']}" if last else ""
    return (
        f"{found['message_id']:>8}  {found['state']:7}  {found['type']:15}  {found['created_at']}  "
        f"{found['event_id']}  attempts {found['attempt']}{tail}"
    )


@api_command("webhooks add", webhooks, repeatable=False)
@click.argument("address", metavar="URL")
@_choice_options
async def add(api: ApiClient, address: str, events: tuple[str, ...], policy: str | None, as_json: bool) -> None:
    """Send future events to URL. Prints the secret, which cannot be read again."""
    made = await _ask(api, "POST", "", {"url": address} | _wanted(events=events, policy=policy))
    line = f"added endpoint {made['endpoint_id']} with the secret {made['secret']}"
    show(made, [line], as_json=as_json)


@api_command("webhooks list", webhooks, rows=True)
async def list_endpoints(api: ApiClient, as_json: bool) -> None:
    """All endpoints, and why one is disabled."""
    if not as_json:
        print(f"{'id':>6}  {'state':8}  {'policy':8}  URL  events")
    for found in (await _ask(api, "GET", ""))["endpoints"]:
        show(found, [_endpoint_line(found)], as_json=as_json)


@api_command("webhooks show", webhooks)
@_id_argument
async def show_endpoint(api: ApiClient, endpoint: int, as_json: bool) -> None:
    """One endpoint."""
    found = await _ask(api, "GET", f"/{endpoint}")
    show(found, [_endpoint_line(found)], as_json=as_json)


@api_command("webhooks change", webhooks)
@_id_argument
@click.option("--address", metavar="URL", help="Call this URL from now on.")
@_choice_options
async def change(
    api: ApiClient, endpoint: int, address: str | None, events: tuple[str, ...], policy: str | None, as_json: bool
) -> None:
    """Change an endpoint's URL, events or policy; what is left out stays as it is."""
    wanted = _wanted(url=address, events=events, policy=policy)
    if not wanted:
        raise UsageError("say what to change: --address, --event or --policy")
    await _patch(api, endpoint, wanted, as_json)


async def _patch(api: ApiClient, endpoint: int, wanted: dict[str, Any], as_json: bool) -> None:
    found = await _ask(api, "PATCH", f"/{endpoint}", wanted)
    show(found, [_endpoint_line(found)], as_json=as_json)


def _add_state_command(verb: str, state: str, text: str) -> None:
    async def work(api: ApiClient, endpoint: int, as_json: bool) -> None:
        await _patch(api, endpoint, {"state": state}, as_json)

    work.__doc__ = text
    api_command(f"webhooks {verb}", webhooks)(_id_argument(work))


_add_state_command("enable", "active", "Send events to an endpoint again; see also: replay.")
_add_state_command("disable", "disabled", "Send it nothing; waiting messages are marked failed.")


@api_command("webhooks remove", webhooks)
@_id_argument
async def remove(api: ApiClient, endpoint: int, as_json: bool) -> None:
    """Remove an endpoint."""
    await _ask(api, "DELETE", f"/{endpoint}")
    show({"endpoint_id": endpoint, "state": "removed"}, [f"removed endpoint {endpoint}"], as_json=as_json)


@api_command("webhooks rotate", webhooks, repeatable=False)
@_id_argument
@click.option(
    "--keep",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="The secret before signs as well for so long.  [default: TRANCHE_WEBHOOK_ROTATION of the service]",
)
async def rotate(api: ApiClient, endpoint: int, keep: float | None, as_json: bool) -> None:
    """Give an endpoint a new secret."""
    made = await _ask(api, "POST", f"/{endpoint}/rotate", {"keep_seconds": keep})
    until = made["previous_until"]
    tail = f"; the one before signs as well until {until}" if until else "; the one before is no good"
    show(made, [f"the secret of endpoint {endpoint} is {made['secret']}{tail}"], as_json=as_json)


@api_command("webhooks test", webhooks, repeatable=False)
@_id_argument
async def test(api: ApiClient, endpoint: int, as_json: bool) -> int:
    """Send a test event and wait for its first attempt; exit code 1 if it failed."""
    found = await ask_until(
        await _ask(api, "POST", f"/{endpoint}/test"),
        lambda sent: _ask(api, "GET", f"/{endpoint}/messages/{sent['message_id']}"),
        lambda sent: bool(sent["attempts"]),
        seconds=_TEST_SECONDS,
        pause=0.2,
    )
    show(found, [_message_line(found)], as_json=as_json)
    return 0 if found["state"] == "ok" else 1


@api_command("webhooks messages", webhooks, rows=True)
@_id_argument
@click.option("--state", type=click.Choice([s.value for s in MessageState]), help="Only those in this state.")
@limit_option(20)
async def messages(api: ApiClient, endpoint: int, state: str | None, limit: int, as_json: bool) -> None:
    """Messages to an endpoint, newest first, with their attempts."""
    listed = api.list(f"{_BASE}/{endpoint}/messages", "messages", _wanted(state=state))
    async for raw in take_some(listed, limit):
        found = msgspec.json.decode(raw)
        show(found, [_message_line(found)], as_json=as_json)


@api_command("webhooks replay", webhooks)
@_id_argument
@click.option("--message", type=click.IntRange(min=1), help="This one, whatever its state.")
@click.option("--state", type=click.Choice(["dead", "failed"]), default="dead", show_default=True)
async def replay(api: ApiClient, endpoint: int, message: int | None, state: str, as_json: bool) -> None:
    """Send messages again that did not arrive, under the same event ids."""
    if message is not None:
        found = await _ask(api, "POST", f"/{endpoint}/messages/{message}/replay")
        show(found, [_message_line(found)], as_json=as_json)
        return
    total = 0
    while count := (await _ask(api, "POST", f"/{endpoint}/replay", {"state": state}))["replayed"]:
        total += count
        if count < 1_000:
            break
    show({"replayed": total}, [f"sending {counted(total, 'message')} again"], as_json=as_json)
