"""The use case of webhook endpoints: their events, secrets and messages."""

import os
from typing import Annotated, Final

import msgspec

from app.audit.queries import write_audit
from app.errors import EndpointDisabled, Invalid, NotFound
from app.kit.encryption import WEBHOOK_ENDPOINT, Vault
from app.kit.postgres.database import Connection, Database
from app.settings import Settings
from app.vocabulary import addresses
from app.vocabulary.states import EventType
from app.webhooks import queries as rows
from app.webhooks import rules
from app.webhooks.queries import WebhookEndpoint, WebhookMessage
from app.webhooks.rules import EndpointState, MessageState, Policy

MOST_ENDPOINTS: Final = 20
MOST_KEPT: Final = 30 * 86_400
"""Seconds for which a secret that was rotated away can go on signing."""
REPLAYABLE: Final = (MessageState.DEAD, MessageState.FAILED)
_NO_ENDPOINT: Final = "There is no such webhook endpoint."
_NO_MESSAGE: Final = "There is no such message at this endpoint; settled ones are kept for a time only."

WebhookUrl = Annotated[str, msgspec.Meta(extra_json_schema={"format": "uri", "maxLength": rules.MAX_URL})]

_ACTIVE: Final = msgspec.Meta(extra_json_schema={"enum": ["active", "disabled"]})


class NewWebhookEndpoint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A webhook endpoint to be added."""

    url: WebhookUrl
    """https://, unless its address is in a network that the operator named."""
    events: list[EventType] | None = None
    """The events that it receives; absent: all."""
    policy: Policy = Policy.SHORT
    """`short`: five retries in 75 minutes, and a 4xx that no retry mends is final. `standard`: all but 2xx and 410 is
    tried again, over three days, calls may take 15 s, and an endpoint that fails for five days is disabled."""


class WebhookEndpointChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to be another at an endpoint; absent leaves it as it is."""

    url: WebhookUrl | msgspec.UnsetType = msgspec.UNSET
    events: list[EventType] | msgspec.UnsetType = msgspec.UNSET
    state: Annotated[EndpointState | msgspec.UnsetType, _ACTIVE] = msgspec.UNSET
    policy: Policy | msgspec.UnsetType = msgspec.UNSET


class WebhookSecret(WebhookEndpoint, frozen=True, kw_only=True):
    """An endpoint with its new secret, which is shown this once."""

    secret: Annotated[str, msgspec.Meta(extra_json_schema={"pattern": "^whsec_"})]
    """Signs messages; shown this once."""


async def add(
    database: Database, vault: Vault, settings: Settings, tenant_id: int, new: NewWebhookEndpoint, *, actor: str
) -> WebhookSecret:
    """Add an endpoint; it receives future events.

    Raises:
        Invalid: the URL or the events cannot be used, or the tenant has `MOST_ENDPOINTS`.
    """
    _check_url(new.url, settings)
    events = _check_events(list(rules.ALL_EVENTS) if new.events is None else list(new.events))
    secret = rules.make_secret(os.urandom(rules.SECRET_BYTES))
    async with database.connection() as connection, connection.transaction():
        endpoint_id = await rows.add_endpoint(
            connection, tenant_id, new.url, events, most=MOST_ENDPOINTS, policy=new.policy
        )
        if endpoint_id is None:
            raise Invalid(f"There are {MOST_ENDPOINTS} webhook endpoints, which is the limit; remove one first.")
        await rows.set_secret(
            connection, tenant_id, endpoint_id, _seal(vault, secret, tenant_id, endpoint_id), keep=None
        )
        await write_audit(
            connection, tenant_id, actor, "webhook.add", _subject(endpoint_id), {"url": new.url, "events": events}
        )
        return _show(await read(connection, tenant_id, endpoint_id), secret)


async def read(connection: Connection, tenant_id: int, endpoint_id: int) -> WebhookEndpoint:
    """
    Raises:
        NotFound: there is none.
    """
    found = await rows.list_endpoints(connection, tenant_id, endpoint_id)
    if not found:
        raise NotFound(_NO_ENDPOINT)
    return found[0]


async def change(
    database: Database,
    settings: Settings,
    tenant_id: int,
    endpoint_id: int,
    wanted: WebhookEndpointChange,
    *,
    actor: str,
) -> WebhookEndpoint:
    """Change an endpoint; disabling it ends what still waits for it.

    Raises:
        Invalid: a value cannot be used.
        NotFound: there is no such endpoint.
    """
    if wanted.state is EndpointState.REMOVED:
        raise Invalid("state is active or disabled; DELETE removes an endpoint.")
    if wanted.url is not msgspec.UNSET:
        _check_url(wanted.url, settings)
    given = {n: v for n, v in msgspec.structs.asdict(wanted).items() if v is not msgspec.UNSET}
    changes = given | ({"events": _check_events(given["events"])} if "events" in given else {})
    async with database.connection() as connection, connection.transaction():
        if not await rows.change_endpoint(connection, tenant_id, endpoint_id, **changes):
            raise NotFound(_NO_ENDPOINT)
        await write_audit(connection, tenant_id, actor, "webhook.change", _subject(endpoint_id), given)
        if wanted.state is EndpointState.DISABLED:
            await rows.close_messages(connection, tenant_id, endpoint_id, "the endpoint was disabled")
        return await read(connection, tenant_id, endpoint_id)


async def remove(database: Database, tenant_id: int, endpoint_id: int, *, actor: str) -> None:
    """Remove it.

    Raises:
        NotFound: there is none.
    """
    async with database.connection() as connection, connection.transaction():
        if not await rows.change_endpoint(connection, tenant_id, endpoint_id, state=EndpointState.REMOVED):
            raise NotFound(_NO_ENDPOINT)
        await write_audit(connection, tenant_id, actor, "webhook.remove", _subject(endpoint_id))
        await rows.close_messages(connection, tenant_id, endpoint_id, "the endpoint was removed")


async def rotate(
    database: Database, vault: Vault, tenant_id: int, endpoint_id: int, *, keep: float, actor: str
) -> WebhookSecret:
    """Give the endpoint a new secret; for `keep` seconds the one before signs as well.

    Raises:
        NotFound: there is no such endpoint.
    """
    secret = rules.make_secret(os.urandom(rules.SECRET_BYTES))
    sealed = _seal(vault, secret, tenant_id, endpoint_id)
    async with database.connection() as connection, connection.transaction():
        if not await rows.set_secret(connection, tenant_id, endpoint_id, sealed, keep=keep or None):
            raise NotFound(_NO_ENDPOINT)
        await write_audit(connection, tenant_id, actor, "webhook.rotate", _subject(endpoint_id), {"keep_seconds": keep})
        return _show(await read(connection, tenant_id, endpoint_id), secret)


async def send_test(database: Database, tenant_id: int, endpoint_id: int) -> WebhookMessage:
    """Send it a `webhook.test`, whatever it listens to.

    Raises:
        NotFound: there is no such endpoint.
        EndpointDisabled: it is disabled.
    """
    async with database.connection() as connection:
        added = await rows.add_test_message(connection, tenant_id, endpoint_id, rules.TEST_EVENT)
        if added is None:
            await _check_active(connection, tenant_id, endpoint_id)
            raise NotFound(_NO_ENDPOINT)
        return await read_message(connection, tenant_id, endpoint_id, added)


async def read_messages(
    connection: Connection,
    tenant_id: int,
    endpoint_id: int,
    *,
    state: MessageState | None,
    before: int | None,
    limit: int,
) -> tuple[list[WebhookMessage], int | None]:
    """A page, newest first, and before which message the next one begins.

    Raises:
        NotFound: there is no such endpoint.
    """
    await read(connection, tenant_id, endpoint_id)
    found = await rows.list_messages(
        connection, tenant_id, endpoint_id, state=state, before=rows.LAST if before is None else before, limit=limit + 1
    )
    page = found[:limit]
    return page, page[-1].message_id if len(found) > limit else None


async def read_message(connection: Connection, tenant_id: int, endpoint_id: int, message_id: int) -> WebhookMessage:
    """
    Raises:
        NotFound: there is none.
    """
    found = await rows.list_messages(connection, tenant_id, endpoint_id, before=min(message_id + 1, rows.LAST), limit=1)
    if not found or found[0].message_id != message_id:
        raise NotFound(_NO_MESSAGE)
    return found[0]


async def replay_message(database: Database, tenant_id: int, endpoint_id: int, message_id: int) -> WebhookMessage:
    """Send one message again, under its event id; one that is pending is left as it is.

    Raises:
        NotFound: there is no such message.
        EndpointDisabled: the endpoint is disabled.
    """
    async with database.connection() as connection:
        await _check_active(connection, tenant_id, endpoint_id)
        await rows.replay_message(connection, tenant_id, endpoint_id, message_id)
        return await read_message(connection, tenant_id, endpoint_id, message_id)


async def replay_messages(database: Database, tenant_id: int, endpoint_id: int, state: MessageState) -> int:
    """Send all messages in a state again; how many, of many only a part.

    Raises:
        Invalid: they need no replay.
        NotFound: there is no such endpoint.
        EndpointDisabled: the endpoint is disabled.
    """
    if state not in REPLAYABLE:
        raise Invalid(f"state is {' or '.join(REPLAYABLE)}: what is to be sent again.")
    async with database.connection() as connection:
        await _check_active(connection, tenant_id, endpoint_id)
        return await rows.replay_messages(connection, tenant_id, endpoint_id, state)


async def _check_active(connection: Connection, tenant_id: int, endpoint_id: int) -> None:
    if (await read(connection, tenant_id, endpoint_id)).state is not EndpointState.ACTIVE:
        raise EndpointDisabled()


def _subject(endpoint_id: int) -> str:
    """As the audit log names it."""
    return f"webhook_endpoint:{endpoint_id}"


def _check_url(url: str, settings: Settings) -> None:
    fault = rules.url_fault(url, addresses.parse_networks(settings.webhook_private))
    if fault is not None:
        raise Invalid(fault)


def _check_events(events: list[str]) -> list[str]:
    if not events:
        raise Invalid(f"events is empty; name some of: {', '.join(rules.ALL_EVENTS)}.")
    return sorted({str(event) for event in events})


def _seal(vault: Vault, secret: str, tenant_id: int, endpoint_id: int) -> bytes:
    return vault.seal(secret, tenant_id=tenant_id, name=str(endpoint_id), kind=WEBHOOK_ENDPOINT, address="")


def _show(endpoint: WebhookEndpoint, secret: str) -> WebhookSecret:
    return WebhookSecret(**msgspec.structs.asdict(endpoint), secret=secret)
