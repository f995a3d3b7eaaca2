"""`tranche destinations add | change | kinds | list | test | pause | resume | open | close | remove`.

With an API key it speaks to the API like everybody else. An operator at the database may name a tenant instead.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import rich_click as click
from rich.table import Table
from rich.text import Text

from app.cli import destination_tests as testing
from app.cli.client.connection import print_table
from app.cli.client.progress import clean
from app.cli.local import place
from app.cli.local.destination_backends import DestinationBackend, choose_backend
from app.cli.secret_input import read_secret
from app.destinations import kinds as domain
from app.destinations import service
from app.destinations.circuits.service import DEFAULT_SECONDS, CircuitOrder
from app.destinations.options import describe
from app.errors import Invalid, NotFound


def _where(command: Any) -> Any:
    for option in (
        click.option("--key", help="API key with the scope admin.  [default: TRANCHE_API_KEY]"),
        click.option("--url", help="Where the API is.  [default: TRANCHE_URL]"),
        place.data_dir_option,
        click.option("--tenant", help="Go to the database instead, for this tenant."),
    ):
        command = option(command)
    return command


def _token(command: Any) -> Any:
    """The access token: in the clear on the command line others see it in `ps`, and the shell remembers it."""
    command = click.option(
        "--token-file",
        metavar="FILE",
        help="File with its access token; - reads it from standard input.",
    )(command)
    return click.option(
        "--token", help="The access token itself; - reads it from standard input. Better: --token-file."
    )(command)


def _choices(command: Any) -> Any:
    """What may be chosen for a destination of any kind."""
    chosen: list[Callable[[Any], Any]] = [
        click.option("--batch-size", type=int, help="Most contacts a call."),
        click.option("--concurrency", type=int, help="Most calls at a time."),
        click.option("--rate", type=float, help="Most calls a second."),
        click.option("--connect-timeout", type=float, help="Seconds to wait for a connection."),
        click.option("--total-timeout", type=float, help="Seconds a call may take in all."),
        click.option(
            "--field",
            "fields",
            multiple=True,
            metavar="OURS=THEIRS",
            help="The name of a field or attribute there; nothing after = excludes it (repeatable).",
        ),
        click.option(
            "--option",
            "options",
            multiple=True,
            metavar="NAME=VALUE",
            help="Option of its kind, see `tranche destinations kinds` (repeatable).",
        ),
    ]
    for option in reversed(chosen):
        command = option(command)
    return command


@click.group()
def destinations() -> None:
    """Where a tenant's contacts are synced."""


_json_option = click.option("--json", "as_json", is_flag=True, help="Print the destination as JSON.")


@destinations.command()
@click.argument("name")
@click.option("--kind", required=True, type=click.Choice(service.KINDS), help="Which CRM it is.")
@click.option("--base-url", required=True, help="Where it is, e.g. https://api.hubapi.com.")
@_token
@_choices
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@_where
def add(
    name: str,
    kind: str,
    base_url: str,
    token: str | None,
    token_file: str | None,
    fields: tuple[str, ...],
    options: tuple[str, ...],
    as_json: bool,
    tenant: str | None,
    url: str | None,
    key: str | None,
    **limits: float | None,
) -> None:
    """Sync contacts that change from now on to a CRM, under a NAME of your choice.

    For example: tranche destinations add crm --kind salesforce --base-url https://acme.my.salesforce.com
    --token-file token.txt --rate 5 --field company= --field Plan=Tier__c --option default_last_name=(unknown)
    """
    chosen = _options(kind, options)
    chosen |= {name: value for name, value in limits.items() if value is not None}
    if fields:
        chosen["fields"] = {**(chosen.get("fields") or {}), **_fields(fields)}
    secret = read_secret("token", token, token_file)
    if secret is None:
        raise click.UsageError("Missing option '--token-file' (or '--token'): its access token")
    new = service.NewDestination(name=name, kind=kind, base_url=base_url, token=secret, options=chosen)
    made = asyncio.run(choose_backend(tenant, url, key).add(new))
    click.echo(
        json.dumps(made) if as_json else f"added {made['name']} ({made['kind']} at {made['base_url']})"
    )


def _options(kind: str, pairs: tuple[str, ...]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise Invalid(f"--option {pair!r} must be NAME=VALUE.")
        options[name] = domain.read_option(kind, name, value)
    return options


def _fields(pairs: tuple[str, ...]) -> dict[str, str | None]:
    fields: dict[str, str | None] = {}
    for pair in pairs:
        ours, equals, theirs = pair.partition("=")
        if not equals or not ours:
            raise Invalid(f"--field {pair!r} must be OURS=THEIRS.")
        fields[ours] = theirs or None
    return fields


@destinations.command()
@click.argument("name")
@_token
@_choices
@click.option(
    "--default", "defaults", multiple=True, metavar="NAME", help="Have this option's default again."
)
@_json_option
@_where
def change(
    name: str,
    token: str | None,
    token_file: str | None,
    fields: tuple[str, ...],
    options: tuple[str, ...],
    defaults: tuple[str, ...],
    as_json: bool,
    tenant: str | None,
    url: str | None,
    key: str | None,
    **limits: float | None,
) -> None:
    """Set another token or other options; waiting deliveries continue with them.

    Contacts that have arrived are not sent again because of new options.
    """
    secret = read_secret("token", token, token_file)

    async def work(backend: DestinationBackend) -> None:
        found = next((d for d in await backend.list() if d["name"] == name), None)
        if found is None:
            raise NotFound(f"There is no destination {name!r}.")
        chosen = _options(found["kind"], options)
        chosen |= {option: value for option, value in limits.items() if value is not None}
        if fields:
            known = chosen.get("fields") or found["options"].get("fields") or {}
            chosen["fields"] = {**known, **_fields(fields)}
        chosen |= dict.fromkeys(defaults)
        await backend.change(name, service.DestinationChange(token=secret, options=chosen or None))

    _finish(name, work, f"changed {name}", (tenant, url, key), as_json=as_json)


@destinations.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def kinds(as_json: bool) -> None:
    """List the kinds of destination there are, and the options of each."""
    if as_json:
        described = {
            name: {"description": kind.description, "options": describe(kind.options)}
            for name, kind in domain.KINDS.items()
        }
        click.echo(msgspec.json.encode(described).decode())
        return
    for name, kind in domain.KINDS.items():
        click.echo(f"{name}: {kind.description}")
        for option, option_help in describe(kind.options).items():
            default = json.dumps(option_help.default, ensure_ascii=False)
            click.echo(f"  {option:18} {default:18} {option_help.words}")


@destinations.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@_where
def list_(as_json: bool, tenant: str | None, url: str | None, key: str | None) -> None:
    """List destinations, and why one is not reached at the moment."""
    found = asyncio.run(choose_backend(tenant, url, key).list())
    if as_json:
        click.echo(json.dumps(found))
        return
    table = Table("name", "kind", "state", "base URL", "what is wrong", box=None)
    for d in found:
        trouble = d.get("detail") or ""
        if d.get("error_code"):
            trouble = f"{d['error_code']} for {d['retry_after_seconds']} s: {trouble}"
        unknown = d.get("unknown") or {}
        if unknown.get("count"):
            trouble += f"  {unknown['count']} unknown, the oldest for {unknown['oldest_seconds']} s"
        circuit = d.get("circuit") or {}
        if circuit.get("state", "closed") != "closed":
            trouble += f"  circuit {circuit['state'].replace('_', '-')}"
            if circuit.get("detail") and circuit["detail"] not in trouble:
                trouble += f": {circuit['detail']}"
        cells = (d["name"], d["kind"], d["state"], d["base_url"], trouble.strip())
        table.add_row(*(Text(clean(cell)) for cell in cells))
    print_table(table)


def _finish(
    name: str,
    work: Callable[[DestinationBackend], Coroutine[Any, Any, None]],
    line: str,
    where: tuple[str | None, str | None, str | None],
    *,
    as_json: bool,
) -> None:
    """Do it, and say so: in words, or by the destination as it is then."""

    async def run() -> dict[str, Any]:
        backend = choose_backend(*where)
        await work(backend)
        if not as_json:
            return {}
        gone = {"name": name, "state": "removed"}
        return next((d for d in await backend.list() if d["name"] == name), gone)

    found = asyncio.run(run())
    click.echo(json.dumps(found) if as_json else line)


def _set_state(
    name: str,
    state: str,
    word: str,
    tenant: str | None,
    url: str | None,
    key: str | None,
    *,
    as_json: bool,
) -> None:
    _finish(
        name,
        lambda backend: backend.set_state(name, state),
        f"{word} {name}",
        (tenant, url, key),
        as_json=as_json,
    )


@destinations.command()
@click.argument("name")
@_json_option
@_where
def pause(name: str, tenant: str | None, url: str | None, key: str | None, as_json: bool) -> None:
    """Send nothing until resumed; deliveries wait and spend no attempt."""
    _set_state(name, "paused", "paused", tenant, url, key, as_json=as_json)


@destinations.command()
@click.argument("name")
@_json_option
@_where
def resume(name: str, tenant: str | None, url: str | None, key: str | None, as_json: bool) -> None:
    """Continue sending at once."""
    _set_state(name, "active", "resumed", tenant, url, key, as_json=as_json)


def _shared(command: Any) -> Any:
    return click.option(
        "--shared",
        is_flag=True,
        help="The circuit of its CRM instead, for all tenants who call it; with --tenant, for an operator.",
    )(command)


@destinations.command("open")
@click.argument("name")
@click.option(
    "--for", "seconds", type=float, metavar="SECONDS", help=f"How long.  [default: {DEFAULT_SECONDS:g}]"
)
@_shared
@_json_option
@_where
def open_(
    name: str,
    seconds: float | None,
    shared: bool,
    as_json: bool,
    tenant: str | None,
    url: str | None,
    key: str | None,
) -> None:
    """Open its circuit: send nothing for a while, then make a few probes. Deliveries spend no attempt."""
    order = CircuitOrder(state="open", seconds=seconds)
    _finish(
        name,
        lambda backend: backend.set_circuit(name, order, shared=shared),
        f"opened the {_circuit_of(shared)} of {name} for {seconds or DEFAULT_SECONDS:g} s",
        (tenant, url, key),
        as_json=as_json,
    )


@destinations.command()
@click.argument("name")
@_shared
@_json_option
@_where
def close(
    name: str, shared: bool, as_json: bool, tenant: str | None, url: str | None, key: str | None
) -> None:
    """Close its circuit: send at once, whatever opened it."""
    _finish(
        name,
        lambda backend: backend.set_circuit(name, CircuitOrder(state="closed"), shared=shared),
        f"closed the {_circuit_of(shared)} of {name}",
        (tenant, url, key),
        as_json=as_json,
    )


def _circuit_of(shared: bool) -> str:
    return "shared circuit" if shared else "circuit"


@destinations.command()
@click.argument("name")
@_json_option
@_where
def remove(name: str, tenant: str | None, url: str | None, key: str | None, as_json: bool) -> None:
    """Send nothing more; pending deliveries are marked skipped. History remains."""
    _set_state(name, "removed", "removed", tenant, url, key, as_json=as_json)


destinations.add_command(testing.make_command(lambda *words: choose_backend(*words), _where))
