"""Destinations: what the commands and the routes of an administrator share."""

import re
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Final

import asyncpg
import msgspec

from app.audit.queries import OPERATOR, write_audit
from app.destinations import kinds
from app.destinations import queries as rows
from app.destinations.base_urls import base_url_fault
from app.destinations.circuits import queries as circuit_queries
from app.destinations.circuits.queries import Circuit
from app.destinations.credentials import Credentials, CredentialsError, Stored, Token, TokenCredentials, type_of, write
from app.destinations.credentials import check as check_credentials
from app.destinations.options import OptionsError
from app.destinations.presets import resolve_preset
from app.destinations.queries import DestinationRow
from app.errors import Conflict, Invalid, NotFound
from app.kit.encryption import Vault
from app.kit.postgres.database import Connection
from app.kit.worker_registry import Workers
from app.resources.json_schema import TYPE_NAME
from app.resources.types import BUILT_IN
from app.resources.types.contacts import CONTACTS
from app.settings import PREFIX
from app.vocabulary.addresses import Network
from app.vocabulary.freshness import Freshness

KINDS: Final = tuple(kinds.KINDS)
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_WORDS: Final = {"active": "resume", "paused": "pause", "removed": "remove"}
_SCHEMES: Final = sorted({scheme for kind in kinds.KINDS.values() for scheme in kind.url.schemes})
_BASE_URL: Final = msgspec.Meta(
    examples=["https://api.hubapi.com"], extra_json_schema={"pattern": f"^({'|'.join(_SCHEMES)})://"}
)
Kind = Annotated[str, msgspec.Meta(extra_json_schema={"enum": list(KINDS)})]
_RESERVED: Final = frozenset({"db"})


class Unknown(msgspec.Struct, frozen=True):
    """Items that were sent to a destination and whose answer was lost."""

    count: int = 0
    oldest_seconds: int = 0
    """Since the first of them became unknown."""


class Pending(msgspec.Struct, frozen=True):
    """Items that wait to be sent to a destination, for the first time or again."""

    count: int = 0
    oldest_seconds: int = 0
    """Since the oldest of their deliveries was written."""
    at_least: bool = False
    """There are so many that only the deliveries that are due first were counted."""


class ShownCredentials(msgspec.Struct, frozen=True):
    """What is shown of credentials."""

    type: str
    expires_at: datetime | None = None
    """When the access token that was issued last expires; another one is requested before. null: there is none, or the
    server does not say."""


class Destination(Freshness, frozen=True, kw_only=True):
    """A destination as it is shown; its credentials never are."""

    name: str
    kind: Kind
    base_url: str
    options: dict[str, Any]
    types: list[str] | None
    """Of the records that go there; null: those that its kind has a place for."""
    credentials: ShownCredentials
    state: Annotated[str, msgspec.Meta(extra_json_schema={"enum": ["active", "paused"]})]
    created_at: datetime
    verified_at: datetime | None = None
    """When a sync with the mode `verify` last began; null: never."""
    error_code: str | None = None
    detail: str | None = None
    retry_after_seconds: int = 0
    pending: Pending = Pending()
    unknown: Unknown = Unknown()
    circuit: Circuit = Circuit()


class NewDestination(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A destination to be added."""

    name: Annotated[str, msgspec.Meta(extra_json_schema={"pattern": f"^{_NAME.pattern}$"})]
    kind: Kind
    base_url: Annotated[str, _BASE_URL]
    token: Token | None = None
    """Short for `credentials` of the type `token`."""
    credentials: Credentials | None = None
    """Kept encrypted and never shown again."""
    options: dict[str, Any] = {}
    """Of its kind: a wrong one is refused with its name. All of them: `tranche destinations kinds`."""
    types: list[str] | None = None
    """Of the records that go there; null: those that its kind has a place for."""


class DestinationChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What shall be different about a destination."""

    token: Token | None = None
    """Short for `credentials` of the type `token`."""
    credentials: Credentials | None = None
    """Kept encrypted and never shown again."""
    options: dict[str, Any] | None = None
    """Those that are named change, the others stay as they are; null is the default."""
    types: list[str] | msgspec.UnsetType | None = msgspec.UNSET
    """Of the records that go there from now on; null: those that its kind has a place for."""


async def add_destination(
    connection: Connection,
    vault: Vault,
    tenant_id: int,
    new: NewDestination,
    *,
    private: Sequence[Network] = (),
    most: int | None = None,
    actor: str = OPERATOR,
) -> Destination:
    """Add a destination; records that change from now on are synced to it.

    `private`: networks that are not the public internet, and that the operator lets destinations reach nevertheless.
    `most`: destinations that the tenant may have; without it, any number.

    Raises:
        Invalid: the name, kind, URL, token or an option cannot be used.
        Conflict: the tenant has a destination of this name, or `most`.
    """
    if not _NAME.fullmatch(new.name) or new.name in _RESERVED:
        raise Invalid(f"{new.name!r} is not a valid destination name: use a-z, 0-9, '-' and '_', not 'db'.")
    options = _check_options(new.kind, new.options)
    types = _check_types(new.kind, new.types, new.options)
    _check_match(new.kind, new.options, types)
    if (fault := base_url_fault(new.base_url, private, kinds.KINDS[new.kind].url)) is not None:
        raise Invalid(fault)
    base_url = new.base_url.rstrip("/")
    credentials = _check_credentials(new.kind, new.token, new.credentials, private)
    if credentials is None:
        raise Invalid("Credentials are missing: give a token, or credentials of another type.")
    secret = write(Stored(credentials=credentials))
    sealed = vault.seal(secret, tenant_id=tenant_id, name=new.name, address=base_url)
    try:
        async with connection.transaction():
            if most is not None:
                count = await rows.count_destinations(connection, tenant_id)
                if count >= most:
                    raise Conflict(
                        f"There are {count} destinations, and a tenant may have {most}; remove one first. An operator "
                        f"may raise {PREFIX}MAX_DESTINATIONS."
                    )
            type = type_of(credentials)
            await rows.insert_destination(
                connection, tenant_id, new.name, new.kind, base_url, sealed, options, types, type
            )
            noted = {"kind": new.kind, "credentials": type}
            await write_audit(connection, tenant_id, actor, "destination.add", f"destination:{new.name}", noted)
    except asyncpg.UniqueViolationError as error:
        raise Conflict(
            f"There is a destination {new.name!r} already; remove it first, or choose another name."
        ) from error
    return next(d for d in await list_destinations(connection, tenant_id) if d.name == new.name)


async def change_destination(
    connection: Connection,
    vault: Vault,
    tenant_id: int,
    name: str,
    change: DestinationChange,
    *,
    private: Sequence[Network] = (),
    actor: str = OPERATOR,
) -> int:
    """Give a destination other credentials or options; returns its id.

    Workers go by it from their next call on. New credentials are tried at once, whatever circuit those before opened.
    Records that have arrived are not sent again because of new options. `private`: as for `add_destination`.

    Raises:
        Invalid: the credentials or an option cannot be used, or nothing is to be changed.
        NotFound: there is no such destination.
    """
    given = change.token if change.token is not None else change.credentials
    if given is None and not change.options and change.types is msgspec.UNSET:
        raise Invalid("There is nothing to change: give a token, credentials, options or types.")
    async with connection.transaction():
        found = await rows.lock_destination(connection, tenant_id, name)
        if found is None:
            raise NotFound(f"There is no destination {name!r}.")
        sealed = None
        credentials = _check_credentials(found.kind, change.token, change.credentials, private)
        if credentials is not None:
            secret = write(Stored(credentials=credentials))
            sealed = vault.seal(secret, tenant_id=tenant_id, name=name, address=found.base_url)
        options, kept = None, found.options
        if change.options:
            stored = found.options
            strange = change.options.keys() - stored.keys() - kinds.names_of(found.kind)
            if strange:  # null would take away what is not there, and hide a slip of the pen
                _check_options(found.kind, dict.fromkeys(strange))
            merged = {**stored, **change.options}
            kept = {option: value for option, value in merged.items() if value is not None}
            options = _check_options(found.kind, kept)
        anew = change.types is not msgspec.UNSET
        types = found.types if change.types is msgspec.UNSET else change.types
        types = _check_types(found.kind, types, found.options | (change.options or {}))
        anew = anew or types != found.types
        if (change.options or {}).keys() & {"match_on", "fields", "read_path"} or anew:
            _check_match(found.kind, kept, types)
        type = None if credentials is None else type_of(credentials)
        destination_id = await rows.change_destination(
            connection, tenant_id, name, sealed, options, actor, anew, types, type
        )
        if sealed is not None:
            await rows.hasten_deliveries(connection, tenant_id, destination_id, False)
        noted: dict[str, Any] = {"options": change.options} if change.options else {}
        noted |= {"token": sealed is not None} | ({"types": types} if anew else {})
        noted |= {"credentials": type} if type is not None else {}
        await write_audit(connection, tenant_id, actor, "destination.change", f"destination:{name}", noted)
    return destination_id


def _check_options(kind: str, options: dict[str, Any]) -> str:
    try:
        kinds.parse(kind, options)
    except OptionsError as error:
        raise Invalid(str(error)) from error
    text = msgspec.json.encode(options).decode()
    if "\\u0000" in text:
        raise Invalid("The options hold a NUL character.")
    return text


def _check_match(kind: str, options: dict[str, Any], types: Collection[str] | None) -> None:
    """By which field records are looked for, if that was chosen."""
    if options.get("match_on") is None:
        return
    there = [one for one in BUILT_IN.values() if kinds.has_place(kind, one) and (types is None or one.name in types)]
    try:
        kinds.check_match(kinds.parse(kind, options), there)
    except OptionsError as error:
        raise Invalid(str(error)) from error


async def find_kinds(connection: Connection, tenant_id: int, names: Collection[str]) -> dict[str, str]:
    """By name, of those that there are."""
    return dict(await rows.destination_kinds(connection, tenant_id, list(names)))


def _check_types(kind: str, types: list[str] | None, options: Mapping[str, Any]) -> list[str] | None:
    of_one_type = kinds.paths_of_one_type(resolve_preset(options)) if kinds.KINDS[kind].takes_any else {}
    if types is None:
        # Those that accept imports look at these paths among the options themselves (part `takes_type`).
        seen = {name for name in ("path", "read_path", "archive_path", "table") if options.get(name) is not None}
        return [CONTACTS.name] if of_one_type.keys() - seen else None
    shared = of_one_type if len(set(types)) > 1 else {}
    for option, path in shared.items():
        raise Invalid(
            f"types: {' and '.join(sorted(set(types)))} cannot share the {option} {path!r}: write {{type}} where the "
            "name of the type belongs, or add a destination for each type."
        )
    for name in types:
        if not kinds.has_place(kind, BUILT_IN.get(name)) or not TYPE_NAME.fullmatch(name):
            known = ", ".join(one.name for one in BUILT_IN.values() if kind in one.objects)
            raise Invalid(f"types: {kind} has no place for {name!r}" + (f"; it has one for {known}." if known else "."))
    return sorted(set(types))


def _check_credentials(
    kind: str, token: str | None, credentials: Credentials | None, private: Sequence[Network]
) -> Credentials | None:
    """Those that are given, in either form."""
    if token is not None and credentials is not None:
        raise Invalid("token and credentials say the same: give one of them.")
    found = TokenCredentials(token=token) if token is not None else credentials
    if found is not None:
        try:
            check_credentials(found, kinds.KINDS[kind].credentials, private)
        except CredentialsError as error:
            raise Invalid(str(error)) from error
    return found


async def list_destinations(
    connection: Connection, tenant_id: int, workers: Workers | None = None
) -> list[Destination]:
    """All of them, by name. With `workers`, one that none of these can serve says why."""
    circuits = await circuit_queries.read_circuits(connection, tenant_id)
    return [
        Destination(
            name=row.name,
            kind=row.kind,
            base_url=row.base_url,
            options=row.options,
            types=row.types,
            credentials=ShownCredentials(row.credentials_type, row.access_expires_at),
            state=row.state,
            created_at=row.created_at,
            verified_at=row.verified_at,
            error_code=row.blocked_code if row.blocked_for else None,
            detail=row.blocked_detail if row.blocked_for else _find_absence(row, workers),
            retry_after_seconds=-int(-row.blocked_for // 1),
            pending=Pending(row.pending, row.pending_for, row.more_pending),
            unknown=Unknown(row.unknown, row.unknown_for),
            circuit=circuits.get(row.name, Circuit()),
        )
        for row in await rows.list_destinations(connection, tenant_id)
    ]


def _find_absence(row: DestinationRow, workers: Workers | None) -> str | None:
    return workers.why_nobody(row.credentials) if workers and row.state == "active" else None


async def set_destination_state(
    connection: Connection, tenant_id: int, name: str, state: str, *, actor: str = OPERATOR
) -> int:
    """`active`, `paused` or `removed`; returns the destination's id."""
    async with connection.transaction():
        found = await rows.set_destination_state(connection, tenant_id, name, state)
        if found is None:
            raise NotFound(f"There is no destination {name!r}.")
        if state == "removed":
            # What is owed there is skipped, whatever it waited for.
            await rows.hasten_deliveries(connection, tenant_id, found, True)
        await write_audit(connection, tenant_id, actor, f"destination.{_WORDS[state]}", f"destination:{name}")
    return found
