"""`tranche webhooks add | list | show | change | enable | disable | rotate | test | messages | replay | remove`."""

from typing import Any, Final

import msgspec
import rich_click as click

from app.cli.client.api_client import ApiClient
from app.cli.client.clock import ask_until
from app.cli.client.errors import UsageError
from app.cli.client.progress import counted
from app.cli.command import api_command, limit_option, options
from app.cli.output import show, take_some, wants_json
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
    return msgspec.json.decode(await api.ask(method, _BASE + path, body) or b"{}")


def _wanted(**given: Any) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value}


def _show_endpoint(found: dict[str, Any]) -> None:
    why = f"  {found['detail']}" if found.get("detail") else ""
    if found.get("failing_since"):
        why += f"  failing since {found['failing_since']}"
    facts = f"{found['endpoint_id']:>6}  {found['state']:8}  {found['policy']:8}  {found['url']}"
    show(found, [f"{facts}  {','.join(found['events'])}{why}"])


def _show_message(found: dict[str, Any]) -> None:
    last = found["attempts"][-1] if found["attempts"] else None
    tail = f"  {last['milliseconds']} ms  {last['detail']}" if last else ""
    facts = f"{found['message_id']:>8}  {found['state']:7}  {found['type']:15}  {found['created_at']}"
    lines = [f"{facts}  {found['event_id']}  attempts {found['attempt']}{tail}"]
    if found["state"] in ("dead", "failed") and last and last.get("headers"):
        lines.append("          sent with " + ", ".join(f"{name}: {value}" for name, value in last["headers"].items()))
    show(found, lines)


@api_command(webhooks, "add", repeatable=False)
@click.argument("address", metavar="URL")
@_choice_options
async def add(api: ApiClient, address: str, events: tuple[str, ...], policy: str | None) -> None:
    """Send future events to URL. Prints the secret, which cannot be read again."""
    made = await _ask(api, "POST", "", {"url": address} | _wanted(events=events, policy=policy))
    line = f"added endpoint {made['endpoint_id']} with the secret {made['secret']}"
    show(made, [line])


@api_command(webhooks, "list", rows=True)
async def list_endpoints(api: ApiClient) -> None:
    """All endpoints, and why one is disabled."""
    if not wants_json():
        print(f"{'id':>6}  {'state':8}  {'policy':8}  URL  events")
    for found in (await _ask(api, "GET", ""))["endpoints"]:
        _show_endpoint(found)


@api_command(webhooks, "show")
@_id_argument
async def show_endpoint(api: ApiClient, endpoint: int) -> None:
    """One endpoint."""
    _show_endpoint(await _ask(api, "GET", f"/{endpoint}"))


@api_command(webhooks, "change")
@_id_argument
@click.option("--address", metavar="URL", help="Call this URL from now on.")
@_choice_options
async def change(
    api: ApiClient, endpoint: int, address: str | None, events: tuple[str, ...], policy: str | None
) -> None:
    """Change an endpoint's URL, events or policy; what is left out stays as it is."""
    wanted = _wanted(url=address, events=events, policy=policy)
    if not wanted:
        raise UsageError("say what to change: --address, --event or --policy")
    await _patch(api, endpoint, wanted)


async def _patch(api: ApiClient, endpoint: int, wanted: dict[str, Any]) -> None:
    _show_endpoint(await _ask(api, "PATCH", f"/{endpoint}", wanted))


def _add_state_command(verb: str, state: str, text: str) -> None:
    async def work(api: ApiClient, endpoint: int) -> None:
        await _patch(api, endpoint, {"state": state})

    work.__doc__ = text
    api_command(webhooks, verb)(_id_argument(work))


_add_state_command("enable", "active", "Send events to an endpoint again; see also: replay.")
_add_state_command("disable", "disabled", "Send it nothing; waiting messages are marked failed.")


@api_command(webhooks, "remove")
@_id_argument
async def remove(api: ApiClient, endpoint: int) -> None:
    """Remove an endpoint."""
    await _ask(api, "DELETE", f"/{endpoint}")
    show({"endpoint_id": endpoint, "state": "removed"}, [f"removed endpoint {endpoint}"])


@api_command(webhooks, "rotate", repeatable=False)
@_id_argument
@click.option(
    "--keep",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="The secret before signs as well for so long.  [default: TRANCHE_WEBHOOK_ROTATION of the service]",
)
async def rotate(api: ApiClient, endpoint: int, keep: float | None) -> None:
    """Give an endpoint a new secret."""
    made = await _ask(api, "POST", f"/{endpoint}/rotate", {"keep_seconds": keep})
    until = made["previous_until"]
    tail = f"; the one before signs as well until {until}" if until else "; the one before is no good"
    show(made, [f"the secret of endpoint {endpoint} is {made['secret']}{tail}"])


@api_command(webhooks, "test", repeatable=False)
@_id_argument
async def test(api: ApiClient, endpoint: int) -> int:
    """Send a test event and wait for its first attempt; exit code 1 if it failed."""
    found = await ask_until(
        await _ask(api, "POST", f"/{endpoint}/test"),
        lambda sent: _ask(api, "GET", f"/{endpoint}/messages/{sent['message_id']}"),
        lambda sent: bool(sent["attempts"]),
        seconds=_TEST_SECONDS,
        pause=0.2,
    )
    _show_message(found)
    return 0 if found["state"] == "ok" else 1


@api_command(webhooks, "messages", rows=True)
@_id_argument
@click.option("--state", type=click.Choice([s.value for s in MessageState]), help="Only those in this state.")
@limit_option(20)
async def messages(api: ApiClient, endpoint: int, state: str | None, limit: int) -> None:
    """Messages to an endpoint, newest first, with their attempts."""
    listed = api.list(f"{_BASE}/{endpoint}/messages", "messages", _wanted(state=state))
    async for raw in take_some(listed, limit):
        _show_message(msgspec.json.decode(raw))


@api_command(webhooks, "replay")
@_id_argument
@click.option("--message", type=click.IntRange(min=1), help="This one, whatever its state.")
@click.option("--state", type=click.Choice(["dead", "failed"]), default="dead", show_default=True)
async def replay(api: ApiClient, endpoint: int, message: int | None, state: str) -> None:
    """Send messages again that did not arrive, under the same event ids."""
    if message is not None:
        _show_message(await _ask(api, "POST", f"/{endpoint}/messages/{message}/replay"))
        return
    total = 0
    while count := (await _ask(api, "POST", f"/{endpoint}/replay", {"state": state}))["replayed"]:
        total += count
        if count < 1_000:
            break
    show({"replayed": total}, [f"sending {counted(total, 'message')} again"])
