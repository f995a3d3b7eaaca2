"""`tranche destinations add | connect | change | kinds | list | sync | test | pause | resume | open | close | remove`.

With an API key it speaks to the API like everybody else. An operator at the database may name a tenant instead.
"""

import json
import re
import sys
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path
from typing import Any, Final

import msgspec
import rich_click as click

from app.cli.client.api_client import given
from app.cli.client.authorization_code import Application, obtain_refresh_token
from app.cli.client.clock import ask_until
from app.cli.command import Work, command, connection_options, options, repeated, timeout_option
from app.cli.local import place
from app.cli.local.destination_backends import DestinationBackend, choose_backend
from app.cli.output import json_option, show, show_table, wants_json
from app.deliveries.drift import DriftKind
from app.destinations import kinds as domain
from app.destinations import service
from app.destinations.circuits.service import DEFAULT_SECONDS, CircuitOrder
from app.destinations.credentials import Credentials, RefreshTokenCredentials
from app.destinations.options import describe
from app.destinations.presets import presets
from app.destinations.testing.service import DestinationTestRequest
from app.errors import Invalid, NotFound
from app.syncs.creation import SyncRequest
from app.syncs.rules import Mode
from app.vocabulary.states import FINISHED_JOB_STATES, EffectState, JobState

_where_options: Final = options(
    click.option("--tenant", help="Go to the database instead, for this tenant."),
    place.data_dir_option,
    connection_options,
)
_token_options: Final = options(
    # On the command line others see a token in `ps`, and the shell remembers it.
    click.option("--token", help="The access token itself; - reads it from standard input. Better: --token-file."),
    click.option("--token-file", metavar="FILE", help="File with its access token; - reads it from standard input."),
    click.option(
        "--credentials-file",
        metavar="FILE",
        help='Instead of a token: JSON such as {"type":"basic","username":"…","password":"…"}; - is standard input.',
    ),
)
_choice_options: Final = options(
    click.option("--batch-size", type=int, help="Most records a call."),
    click.option("--concurrency", type=int, help="Most calls at a time."),
    click.option("--rate", type=float, help="Most calls a second."),
    click.option("--connect-timeout", type=float, help="Seconds to wait for a connection."),
    click.option("--total-timeout", type=float, help="Seconds a call may take in all."),
    repeated("--field", "fields", "OURS=THEIRS", "What a field or attribute is there; empty: excluded (repeatable)."),
    repeated("--value", "values", "NAME=TEXT", "What a preset or a template needs as {values.NAME} (repeatable)."),
    repeated("--option", "options", "NAME=VALUE", "Of its kind, see `tranche destinations kinds` (repeatable)."),
    click.option("--options-file", metavar="FILE", help="Options as an object, in JSON or YAML; -: standard input."),
)
"""What may be chosen for a destination of any kind."""
_types_option: Final = repeated(
    "--type",
    "types",
    "TYPE",
    "Records of this type go there; repeatable. `default`: those that its kind has a place for.",
)
_shared_option: Final = click.option(
    "--shared",
    is_flag=True,
    help="The circuit of its CRM instead, for all tenants who call it; with --tenant, for an operator.",
)
_name_argument: Final = click.argument("name")
_STDIN: Final = "-"
_MOST: Final = 65_536
"""Bytes of a token's file."""


@click.group()
def destinations() -> None:
    """Where a tenant's records are synced."""


def _command(verb: str) -> Callable[[Work], click.Command]:
    """A command of the group; its work gets the backend, then the options by name."""

    def opens(given: dict[str, Any]) -> AbstractAsyncContextManager[DestinationBackend]:
        return nullcontext(choose_backend(given.pop("tenant"), given.pop("url"), given.pop("key")))

    return command(destinations, verb, opens, _where_options)


async def _find(backend: DestinationBackend, name: str) -> dict[str, Any] | None:
    return next((found for found in await backend.list() if found["name"] == name), None)


async def _finish(backend: DestinationBackend, name: str, line: str) -> None:
    """Say what was done: in words, or by the destination as it is now."""
    found = await _find(backend, name) if wants_json() else None
    show(found or {"name": name, "state": "removed"}, [line])


@_command("add")
@_name_argument
@click.option("--kind", type=click.Choice(service.KINDS), help="Which CRM it is; with --preset: http.")
@click.option("--preset", metavar="NAME", help="Options for one vendor, see `tranche destinations kinds`.")
@click.option("--base-url", help="Where it is, e.g. https://api.hubapi.com.  [default: that of the preset]")
@click.option(
    "--backfill/--no-backfill",
    default=True,
    show_default=True,
    help="Send it the records that are there already as well.",
)
@_types_option
@_token_options
@_choice_options
async def add(
    backend: DestinationBackend,
    name: str,
    kind: str | None,
    preset: str | None,
    base_url: str | None,
    backfill: bool,
    types: tuple[str, ...],
    token: str | None,
    token_file: str | None,
    credentials_file: str | None,
    **choices: Any,
) -> None:
    """Sync records to a CRM, under a NAME of your choice: those that are there, and those that change from now on.

    For example: tranche destinations add crm --kind salesforce --base-url https://acme.my.salesforce.com
    --token-file token.txt --rate 5 --field company= --field Plan=Tier__c --option default_last_name=(unknown)
    """
    kind = kind or ("http" if preset is not None else None)
    if kind is None:
        raise click.UsageError("Missing option '--kind' (or '--preset'): which CRM it is")
    chosen = _options(kind, {}, **choices)
    if preset is not None:
        chosen = {"preset": preset, **chosen}
    base_url = base_url or _base_url_of(preset)
    secret, credentials = _read_credentials(token, token_file, credentials_file)
    if secret is None and credentials is None:
        raise click.UsageError(
            "Missing option '--token-file' (or '--token', '--credentials-file'): what it is called with; to have it "
            "allowed in a browser: tranche destinations connect"
        )
    new = service.NewDestination(
        name=name,
        kind=kind,
        base_url=base_url,
        token=secret,
        credentials=credentials,
        options=chosen,
        types=[*types] or None,
    )
    made = await backend.add(new)
    lines = [f"added {made['name']} ({made['kind']} at {made['base_url']})"]
    if backfill:
        sent = await backend.sync(name, SyncRequest())
        lines += [_describe_sync(name, "missing", sent)] if sent["job_id"] else []
    show(made, lines)


def _read_options(file: str) -> dict[str, Any]:
    """Raises `UsageError`: the file cannot be read, or is no object."""
    try:
        content = sys.stdin.buffer.read() if file == _STDIN else Path(file).read_bytes()
        return msgspec.yaml.decode(content, type=dict[str, Any])
    except OSError as error:
        raise click.UsageError(f"--options-file {file}: {error.strerror}") from error
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise click.UsageError(f"--options-file {file}: {' '.join(str(error).split())}") from error


def _read_credentials(
    token: str | None, token_file: str | None, credentials_file: str | None
) -> tuple[str | None, Credentials | None]:
    """The token that was given, or the credentials.

    Raises:
        UsageError: both are given, or a file cannot be read or used.
    """
    secret = read_secret("token", token, token_file)
    if credentials_file is None:
        return secret, None
    if secret is not None:
        raise click.UsageError("--token and --credentials-file say the same: give one of them")
    try:
        content = sys.stdin.buffer.read(_MOST) if credentials_file == _STDIN else Path(credentials_file).read_bytes()
        return None, msgspec.json.decode(content, type=Credentials)
    except OSError as error:
        raise click.UsageError(f"--credentials-file {credentials_file}: {error.strerror}") from error
    except msgspec.DecodeError as error:  # its message never has a value
        raise click.UsageError(f"--credentials-file {credentials_file}: {error}") from error


def _base_url_of(preset: str | None) -> str:
    """That of a preset, if it is the same for everybody. Raises `UsageError`: one must be given."""
    found = presets().get(preset or "")
    if found is None and preset is not None:
        raise click.UsageError(f"{preset!r} is not a preset; there are: {', '.join(presets())}")
    if found is None or any(word.isupper() for word in re.split("[/.:]", found.base_url)):
        example = f": {found.base_url}, with yours in place of the capitals" if found is not None else ""
        raise click.UsageError(f"Missing option '--base-url'{example}")
    return found.base_url


def read_secret(name: str, value: str | None, file: str | None) -> str | None:
    """What `--NAME VALUE` or `--NAME-file FILE` gave, without the line end; `-` is standard input.

    Raises:
        UsageError: both are given, the file cannot be read, or it holds nothing or more than one line.
    """
    if value is not None and file is not None:
        raise click.UsageError(f"--{name} and --{name}-file say the same: give one of them")
    if file is None and value != _STDIN:
        return value
    place = "standard input" if file in (None, _STDIN) else str(file)
    try:
        if file is None or file == _STDIN:
            content = sys.stdin.buffer.read(_MOST + 1)
        else:
            with Path(file).open("rb") as opened:
                content = opened.read(_MOST + 1)
        text = content.decode()
    except OSError as error:
        raise click.UsageError(f"--{name}-file {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise click.UsageError(f"{place} is not text, so it holds no {name}") from error
    lines = text.split("\n")
    secret = lines[0].removesuffix("\r")
    if not secret or any(line.strip() for line in lines[1:]) or len(content) > _MOST:
        raise click.UsageError(f"{place} must hold the {name} alone, on one line")
    return secret


def _options(
    kind: str,
    known: dict[str, Any],
    *,
    fields: tuple[str, ...],
    values: tuple[str, ...],
    options: tuple[str, ...],
    options_file: str | None,
    **limits: float | None,
) -> dict[str, Any]:
    """Options as the service takes them; `fields` and `values` are added to those of the `known` options, and what has
    an option of its own takes precedence over the file."""
    chosen: dict[str, Any] = {} if options_file is None else _read_options(options_file)
    for pair in options:
        name, equals, value = pair.partition("=")
        if not equals:
            raise Invalid(f"--option {pair!r} must be NAME=VALUE.")
        chosen[name] = domain.read_option(kind, name, value)
    chosen |= given(limits)
    for pair in fields:
        ours, equals, theirs = pair.partition("=")
        if not equals or not ours:
            raise Invalid(f"--field {pair!r} must be OURS=THEIRS.")
        chosen["fields"] = {**(chosen.get("fields") or known.get("fields") or {}), ours: theirs or None}
    for pair in values:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise Invalid(f"--value {pair!r} must be NAME=TEXT.")
        chosen["values"] = {**(chosen.get("values") or known.get("values") or {}), name: text}
    return chosen


@_command("change")
@_name_argument
@_types_option
@_token_options
@_choice_options
@repeated("--default", "defaults", "NAME", "Have this option's default again.")
async def change(
    backend: DestinationBackend,
    name: str,
    types: tuple[str, ...],
    token: str | None,
    token_file: str | None,
    credentials_file: str | None,
    defaults: tuple[str, ...],
    **choices: Any,
) -> None:
    """Set other credentials or options; waiting deliveries continue with them.

    Records that have arrived are not sent again because of new options.
    """
    secret, credentials = _read_credentials(token, token_file, credentials_file)
    found = await _find(backend, name)
    if found is None:
        raise NotFound(f"There is no destination {name!r}.")
    chosen = _options(found["kind"], found["options"], **choices)
    chosen |= dict.fromkeys(defaults)
    wanted: list[str] | msgspec.UnsetType | None = [*types] or msgspec.UNSET
    if types == ("default",):
        wanted = None
    change = service.DestinationChange(token=secret, credentials=credentials, options=chosen or None, types=wanted)
    await backend.change(name, change)
    await _finish(backend, name, f"changed {name}")


@_command("connect")
@_name_argument
@click.option("--client-id", required=True, help="Of your application, as it is registered with the vendor.")
@click.option("--client-secret-file", metavar="FILE", help="File with its secret, if it has one; - is standard input.")
@click.option("--scope", default="", help="What it may do there, as the vendor names it; joined by spaces.")
@click.option("--kind", type=click.Choice(service.KINDS), help="With --base-url: add the destination.")
@click.option("--base-url", help="Where it is, e.g. https://api.hubapi.com.")
@click.option("--authorize-url", help="Where an account allows an application.  [default: that of its kind]")
@click.option("--token-url", help="Where tokens are issued.  [default: that of its kind]")
@click.option(
    "--redirect-uri",
    default="http://127.0.0.1:8765/callback",
    show_default=True,
    help="Where the browser comes back to, on this machine, as it is registered with the vendor.",
)
@click.option("--timeout", "seconds", type=float, default=300.0, show_default=True, help="Seconds to wait for it.")
async def connect(
    backend: DestinationBackend,
    name: str,
    client_id: str,
    client_secret_file: str | None,
    scope: str,
    kind: str | None,
    base_url: str | None,
    authorize_url: str | None,
    token_url: str | None,
    redirect_uri: str,
    seconds: float,
) -> None:
    """Have an account allow your application in a browser (OAuth 2), and use what it allows from now on.

    Tokens are then renewed by themselves. For example: tranche destinations connect crm --kind hubspot
    --base-url https://api.hubapi.com --client-id ID --client-secret-file FILE --scope "crm.objects.contacts.write …"
    """
    found = await _find(backend, name)
    if found is None and (kind is None or base_url is None):
        raise NotFound(f"There is no destination {name!r}; to add it, give --kind and --base-url.")
    if found is not None:
        kind, base_url = found["kind"], found["base_url"]
    assert kind is not None
    assert base_url is not None
    place_of = {"base_url": base_url.rstrip("/")}
    authorize_url = authorize_url or (domain.KINDS[kind].authorize_url or "").format(**place_of)
    token_url = token_url or (domain.KINDS[kind].token_url or "").format(**place_of)
    if not authorize_url or not token_url:
        raise click.UsageError(f"{kind} has no addresses of its own for this: give --authorize-url and --token-url")
    secret = read_secret("client-secret", None, client_secret_file) if client_secret_file else None
    application = Application(
        authorize_url=authorize_url,
        token_url=token_url,
        client_id=client_id,
        client_secret=secret or "",
        scope=scope,
        redirect_uri=redirect_uri,
    )
    refresh_token = await obtain_refresh_token(application, _announce, seconds)
    credentials = RefreshTokenCredentials(
        token_url=token_url, client_id=client_id, client_secret=secret or "", refresh_token=refresh_token
    )
    if found is None:
        new = service.NewDestination(name=name, kind=kind, base_url=base_url, credentials=credentials)
        await backend.add(new)
    else:
        await backend.change(name, service.DestinationChange(credentials=credentials))
    await _finish(backend, name, f"connected {name}")


def _announce(url: str) -> None:
    print(f"Open this in a browser, and allow the application:\n\n  {url}\n", file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        webbrowser.open(url)


@destinations.command()
@json_option
def kinds() -> None:
    """List the kinds of destination there are, and the options of each."""
    described: dict[str, Any] = {
        name: {"description": kind.description, "options": describe(kind.options)}
        for name, kind in domain.KINDS.items()
    }
    described["http"]["presets"] = presets()
    show(described, _describe_kinds())


def _describe_kinds() -> Iterator[str]:
    for name, kind in domain.KINDS.items():
        yield f"{name}: {kind.description}"
        for option, option_help in describe(kind.options).items():
            default = json.dumps(option_help.default, ensure_ascii=False)
            yield f"  {option:18} {default:18} {option_help.words}"
    yield "presets of http:"
    for name, preset in presets().items():
        needs = "".join(f"; values.{value}: {words}" for value, words in preset.values.items())
        yield f"  {name:18} {preset.vendor}, at {preset.base_url}{needs}"


@_command("list")
async def list_(backend: DestinationBackend) -> None:
    """List destinations, and why one is not reached at the moment."""
    found = await backend.list()
    columns = ("name", "kind", "state", "base URL", "what is wrong")
    rows = ((*map(d.get, ("name", "kind", "state", "base_url")), _describe_trouble(d)) for d in found)
    show_table(found, columns, rows)


def _describe_trouble(destination: dict[str, Any]) -> str:
    trouble: str = destination.get("detail") or ""
    if destination.get("error_code"):
        trouble = f"{destination['error_code']} for {destination['retry_after_seconds']} s: {trouble}"
    unknown = destination.get("unknown") or {}
    if unknown.get("count"):
        trouble += f"  {unknown['count']} unknown, the oldest for {unknown['oldest_seconds']} s"
    circuit = destination.get("circuit") or {}
    if circuit.get("state", "closed") != "closed":
        trouble += f"  circuit {circuit['state'].replace('_', '-')}"
        if circuit.get("detail") and circuit["detail"] not in trouble:
            trouble += f": {circuit['detail']}"
    return trouble.strip()


@_command("sync")
@_name_argument
@click.option(
    "--mode",
    type=click.Choice(("missing", "all", "verify")),
    default="missing",
    show_default=True,
    help="Send what it lacks or has older, or everything again (after a change of its fields); or compare everything.",
)
@click.option("--type", "type_", metavar="TYPE", help="Records of this type alone.")
@click.option("--repair", is_flag=True, help="With --mode verify: send what is missing or different there.")
@click.option("--limit", type=click.IntRange(min=0), default=20, show_default=True, help="Most differences to print.")
@timeout_option("With --mode verify: how long to wait.")
async def sync(
    backend: DestinationBackend, name: str, mode: Mode, type_: str | None, repair: bool, limit: int, seconds: float
) -> int:
    """Send a destination the records that are there already, or say in what it differs.

    It prints the job, which `tranche jobs wait` follows. Records that are imported meanwhile do not wait behind it.

    With --mode verify it waits, and prints what is missing or different there, and what is there and unknown here. Exit
    code: 0 nothing differs, or all of it was repaired; 1 something differs; 3 still comparing.
    """
    made = await backend.sync(name, SyncRequest(mode=mode, type=type_, repair=repair))
    if mode != "verify" or made["job_id"] is None:
        show(made, [_describe_sync(name, mode, made)])
        return 0
    if not wants_json():
        show(None, [_describe_sync(name, mode, made)])
    job = await ask_until(
        await backend.read_job(made["job_id"]),
        lambda job: backend.read_job(job["job_id"]),
        lambda job: job["state"] in FINISHED_JOB_STATES,
        seconds=seconds,
        pause=1.0,
    )
    show(job, _describe_drift(name, job, await backend.read_drift(job["job_id"], limit)))
    if job["state"] not in FINISHED_JOB_STATES:
        return 3
    repaired = repair and not job["drift"]["unknown"]
    return int(job["state"] != JobState.COMPLETED or not (repaired or not any(job["drift"].values())))


def _describe_sync(name: str, mode: Mode, made: dict[str, Any]) -> str:
    if made["job_id"] is None:
        return f"there are no records to send {name}"
    if mode == "verify":
        return f"job {made['job_id']} compares {made['records']:,} records with what {name} holds"
    what = "everything" if mode == "all" else "what it lacks"
    return f"job {made['job_id']} sends {name} {what} of {made['records']:,} records"


def _describe_drift(name: str, job: dict[str, Any], items: Sequence[dict[str, Any]]) -> Iterator[str]:
    for item in items:
        for there in item["destinations"].values():
            if (drift := there.get("drift")) is not None:
                yield f"  {item['id']}  {_describe_difference(drift)}" + _describe_repair(job, there)
    counts = job["drift"]
    if any(counts.values()):
        yield (
            f"{name} lacks {counts['missing']:,} records, has {counts['different']:,} that differ, and "
            f"{counts['unknown']:,} that nobody knows here"
        )
        if len(items) < sum(counts.values()):
            yield f"all of them: tranche jobs items {job['job_id']} --status drift"
    elif job["state"] == JobState.COMPLETED:
        yield f"{name} holds what is here"
    unread = sum(counts.get("failed", 0) for counts in job["effects"].values())
    if unread and not (job.get("sync") or {}).get("repair"):
        yield f"{unread:,} records could not be read back: tranche jobs show {job['job_id']}"
    if job["error"] is not None:
        yield job["error"]["detail"]
    if job["state"] not in FINISHED_JOB_STATES:
        yield f"not finished: tranche jobs wait {job['job_id']}"


def _describe_difference(drift: dict[str, Any]) -> str:
    if drift["kind"] == DriftKind.MISSING:
        return "is not there"
    if drift["kind"] == DriftKind.UNKNOWN:
        return f"is there{_as_id(drift)}, and not here"
    shown = [f"{f['name']} is {_quoted(f['there'])}, and here {_quoted(f['here'])}" for f in drift.get("fields", [])]
    more = [f"{drift['more']:,} more fields"] if drift.get("more") else []
    return "; ".join(shown + more) or f"differs there{_as_id(drift)}"


def _as_id(drift: dict[str, Any]) -> str:
    return f" as {drift['remote_id']}" if drift.get("remote_id") else ""


def _quoted(value: str | None) -> str:
    return "empty" if value is None or value == "" else repr(value)


def _describe_repair(job: dict[str, Any], there: dict[str, Any]) -> str:
    if not job["sync"]["repair"] or there["state"] == EffectState.SKIPPED:
        return ""
    return " (sent)" if there["state"] == EffectState.OK else f" ({there['state']})"


@_command("open")
@_name_argument
@click.option("--for", "seconds", type=float, metavar="SECONDS", help=f"How long.  [default: {DEFAULT_SECONDS:g}]")
@_shared_option
async def open_(backend: DestinationBackend, name: str, seconds: float | None, shared: bool) -> None:
    """Open its circuit: send nothing for a while, then make a few probes. Deliveries spend no attempt."""
    await backend.set_circuit(name, CircuitOrder(state="open", seconds=seconds), shared=shared)
    line = f"opened the {_circuit_of(shared)} of {name} for {seconds or DEFAULT_SECONDS:g} s"
    await _finish(backend, name, line)


@_command("close")
@_name_argument
@_shared_option
async def close(backend: DestinationBackend, name: str, shared: bool) -> None:
    """Close its circuit: send at once, whatever opened it."""
    await backend.set_circuit(name, CircuitOrder(state="closed"), shared=shared)
    await _finish(backend, name, f"closed the {_circuit_of(shared)} of {name}")


def _circuit_of(shared: bool) -> str:
    return "shared circuit" if shared else "circuit"


def _add_state_command(verb: str, state: str, line: str, text: str) -> None:
    async def work(backend: DestinationBackend, name: str) -> None:
        await backend.set_state(name, state)
        await _finish(backend, name, f"{line} {name}")

    work.__doc__ = text
    _command(verb)(_name_argument(work))


_add_state_command("pause", "paused", "paused", "Send nothing until resumed; deliveries wait and spend no attempt.")
_add_state_command("resume", "active", "resumed", "Continue sending at once.")
_add_state_command(
    "remove", "removed", "removed", "Send nothing more; pending deliveries are marked skipped. History remains."
)


@_command("test")
@_name_argument
@click.option("--canary", is_flag=True, help="Also write one record, read it back and remove it.")
async def test(backend: DestinationBackend, name: str, canary: bool) -> int:
    """Make harmless calls and report the result; exit code 1 unless it works.

    A worker checks that the CRM answers, accepts the token, and is set up correctly. Circuits do not delay it.
    """
    found = await backend.test(name, DestinationTestRequest(canary=canary))
    show(found, _describe_test(found))
    return 0 if found["verdict"] == "works" else 1


def _describe_test(found: dict[str, Any]) -> Iterator[str]:
    marks = {True: "ok", False: "FAILED", None: "--"}
    for step in found["steps"]:
        took = f" ({step['milliseconds']} ms)" if step["milliseconds"] else ""
        yield f"{marks[step['ok']]:6}  {step['name']:11}  {step['detail']}{took}"
    yield {
        "works": f"{found['destination']} works",
        "fails": f"{found['destination']} does not work",
        "unclear": f"it is not clear whether {found['destination']} works",
        None: f"the test of {found['destination']} is not done yet",
    }[found["verdict"]]
