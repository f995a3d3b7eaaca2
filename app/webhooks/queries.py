"""The queries of webhooks, typed."""

import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec

from app.kit.postgres.batched_delete import in_batches
from app.kit.postgres.database import Connection
from app.kit.postgres.query import Affected, Found, Json, Query, Seconds, query
from app.vocabulary.outcomes_wire import JsonObject
from app.webhooks.rules import MOST_ATTEMPTS_KEPT, EndpointState, MessageState, Policy, Verdict

LAST: Final = 2**63 - 1
"""Later than any message."""


class WebhookEndpoint(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint that receives a tenant's events; its secret is never shown again."""

    endpoint_id: int
    url: str
    events: list[str]
    policy: Policy
    state: EndpointState
    detail: str | None
    """Why it is disabled, if nobody here did it."""
    failing_since: datetime | None
    """The first failed attempt after the last that went well; null: the last one went well."""
    created_at: datetime
    previous_until: datetime | None
    """Until then the secret before the last rotation signs as well."""


class WebhookAttempt(msgspec.Struct, frozen=True, kw_only=True):
    """One call of an endpoint."""

    at: datetime
    status: int | None
    """The HTTP status that was answered; null: there was no answer."""
    milliseconds: int
    detail: str
    headers: dict[str, str] | None = None
    """Those that were sent, without the signature, which is a credential; null: it went well."""


class WebhookMessage(msgspec.Struct, frozen=True, kw_only=True):
    """One event for one endpoint."""

    message_id: int
    event_id: uuid.UUID
    """The same over all attempts and replays: receivers recognize repetitions by it."""
    type: str
    state: MessageState
    attempt: int
    """How many were begun since it was written or replayed."""
    attempts: Json[list[WebhookAttempt]]
    payload: Json[JsonObject]
    """What is sent."""
    created_at: datetime
    next_attempt_at: datetime | None
    finished_at: datetime | None


class Claimed(msgspec.Struct, frozen=True, kw_only=True):
    """A message that this worker is about to send."""

    tenant_id: int
    endpoint_id: int
    message_id: int
    event_id: uuid.UUID
    body: str
    attempt: int
    url: str
    policy: Policy
    secret: bytes
    previous_secret: bytes | None
    request_id: str | None
    """Of the request that its job came from; `None`: it is about no job."""
    trace_context: str | None


lock_tenant = Query[[int], None]("lock_tenant")
_count_endpoints = Query[[int], int]("count_endpoints")
_insert_endpoint = Query[[int, str, Sequence[str], Policy], int]("insert_endpoint")


async def add_endpoint(
    connection: Connection, tenant_id: int, url: str, events: Sequence[str], *, most: int, policy: Policy = Policy.SHORT
) -> int | None:
    """Its id, for `set_secret`, without which it cannot sign; `None`: the tenant has `most` already.

    Must run in a transaction.
    """
    await lock_tenant(connection, tenant_id)
    if await _count_endpoints(connection, tenant_id) >= most:
        return None
    return await _insert_endpoint(connection, tenant_id, url, events, policy)


@query("set_endpoint_secret")
async def set_secret(
    connection: Connection, tenant_id: int, endpoint_id: int, sealed: bytes, *, keep: Seconds | None
) -> Found:
    """`keep`: seconds for which the secret before signs as well. False: there is no such endpoint."""


@query
async def list_endpoints(
    connection: Connection, tenant_id: int, endpoint_id: int | None = None
) -> list[WebhookEndpoint]: ...


@query
async def change_endpoint(
    connection: Connection,
    tenant_id: int,
    endpoint_id: int,
    *,
    url: str | None = None,
    events: Sequence[str] | None = None,
    state: EndpointState | None = None,
    policy: Policy | None = None,
) -> Found:
    """`None` leaves as it is. False: there is no such endpoint."""


_close_messages = Query[[int, int, str], Affected]("close_messages")


async def close_messages(connection: Connection, tenant_id: int, endpoint_id: int, why: str) -> int:
    """End what waits for an endpoint that is not active, a bounded number a call; how many."""
    return await in_batches(_close_messages, connection, tenant_id, endpoint_id, why)


_read_strays = Query[[], list[tuple[int, int, str]]]("stray_endpoints")


async def close_strays(connection: Connection) -> int:
    """End what was written for endpoints while they were closed; how many."""
    closed = 0
    for tenant_id, endpoint_id, state in await _read_strays(connection):
        closed += await close_messages(connection, tenant_id, endpoint_id, f"the endpoint was {state}")
    return closed


add_test_message = Query[[int, int, str], int | None]("insert_test_message")
"""(tenant_id, endpoint_id, event_type) `None`: there is no such endpoint, or it is not active."""
_list_messages = Query[[int, int, int, int], list[WebhookMessage]]("list_messages")
_list_messages_in_state = Query[[int, int, int, int, MessageState], list[WebhookMessage]]("list_messages_in_state")


async def list_messages(
    connection: Connection,
    tenant_id: int,
    endpoint_id: int,
    *,
    state: MessageState | None = None,
    before: int = LAST,
    limit: int,
) -> list[WebhookMessage]:
    """Newest first."""
    if state is None:
        return await _list_messages(connection, tenant_id, endpoint_id, before, limit)
    return await _list_messages_in_state(connection, tenant_id, endpoint_id, before, limit, state)


replay_message = Query[[int, int, int], Affected]("replay_message")
"""(tenant_id, endpoint_id, message_id) 0: it is pending, or there is none."""
_replay_messages = Query[[int, int, MessageState], Affected]("replay_messages")


async def replay_messages(connection: Connection, tenant_id: int, endpoint_id: int, state: MessageState) -> int:
    """Send those in this state again, a bounded number a call; how many."""
    return await in_batches(_replay_messages, connection, tenant_id, endpoint_id, state)


due_endpoints = Query[[], list[tuple[int, int]]]("due_endpoints")
"""Tenant and endpoint of each that has a message due."""


@query
async def claim_message(
    connection: Connection, tenant_id: int, endpoint_id: int, *, lease: Seconds, standard_lease: Seconds | None = None
) -> Claimed | None:
    """One due message; after `lease` seconds without `record_attempt` it is due again.

    `standard_lease` is that of endpoints with the policy `standard`; None: the same.
    """


_record_attempt = Query[
    [int, int, int, MessageState, Seconds, Json[WebhookAttempt], int, datetime, bool, str | None, Seconds | None, str],
    bool | None,
]("record_attempt")


async def record_attempt(
    connection: Connection,
    claimed: Claimed,
    attempt: WebhookAttempt,
    verdict: Verdict,
    *,
    disable_after: float | None = None,
    why: str = "",
) -> bool:
    """Whether the endpoint is disabled by it; nothing happens if the lease ran out, and somebody else has it.

    `disable_after`: seconds for which an endpoint may fail before it is disabled, and `why` it then is; None: for ever.
    """
    disabled = await _record_attempt(
        connection,
        claimed.tenant_id,
        claimed.message_id,
        claimed.attempt,
        verdict.state,
        verdict.wait,
        attempt,
        MOST_ATTEMPTS_KEPT,
        attempt.at,
        verdict.state is MessageState.OK,
        attempt.detail if verdict.disable else None,
        disable_after,
        why,
    )
    return bool(disabled)


@query
async def notify_disabled(connection: Connection, tenant_id: int, endpoint_id: int, why: str) -> None:
    """Emit `webhook.disabled`; within the transaction that disables it."""
