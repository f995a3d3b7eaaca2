"""The queries of webhooks, typed."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

import msgspec

from app.db.pool import Connection
from app.db.sql import QUERIES
from app.domain.answers import JsonObject
from app.domain.webhooks import MOST_ATTEMPTS_KEPT, EndpointState, MessageState, Policy, Verdict

_STROKE: Final = 1_000
_MOST_STROKES: Final = 30
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


class WebhookMessage(msgspec.Struct, frozen=True, kw_only=True):
    """One event for one endpoint."""

    message_id: int
    event_id: uuid.UUID
    """The same over all attempts and replays: receivers recognize repetitions by it."""
    type: str
    state: MessageState
    attempt: int
    """How many were begun since it was written or replayed."""
    attempts: list[WebhookAttempt]
    payload: JsonObject
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


async def add_endpoint(
    connection: Connection,
    tenant_id: int,
    url: str,
    events: Sequence[str],
    *,
    most: int,
    policy: Policy = Policy.SHORT,
) -> int | None:
    """Its id, for `set_secret`, without which it cannot sign; `None`: the tenant has `most` already.

    Must run in a transaction.
    """
    await connection.execute(QUERIES["lock_tenant"], tenant_id)
    added: int | None = await connection.fetchval(
        QUERIES["insert_endpoint"], tenant_id, url, list(events), most, policy
    )
    return added


async def set_secret(
    connection: Connection, tenant_id: int, endpoint_id: int, sealed: bytes, *, keep: float | None
) -> bool:
    """`keep`: seconds for which the secret before signs as well. False: there is no such endpoint."""
    kept = None if keep is None else timedelta(seconds=keep)
    done = await connection.fetchval(QUERIES["set_endpoint_secret"], tenant_id, endpoint_id, sealed, kept)
    return done is not None


async def list_endpoints(
    connection: Connection, tenant_id: int, endpoint_id: int | None = None
) -> list[WebhookEndpoint]:
    rows = await connection.fetch(QUERIES["list_endpoints"], tenant_id, endpoint_id)
    return [
        WebhookEndpoint(
            endpoint_id=row["endpoint_id"],
            url=row["url"],
            events=row["events"],
            policy=Policy(row["policy"]),
            state=EndpointState(row["state"]),
            detail=row["detail"],
            failing_since=row["failing_since"],
            created_at=row["created_at"],
            previous_until=row["previous_until"],
        )
        for row in rows
    ]


async def change_endpoint(
    connection: Connection,
    tenant_id: int,
    endpoint_id: int,
    *,
    url: str | None = None,
    events: Sequence[str] | None = None,
    state: EndpointState | None = None,
    policy: Policy | None = None,
) -> bool:
    """`None` leaves as it is. False: there is no such endpoint."""
    changed = await connection.fetchval(
        QUERIES["change_endpoint"],
        tenant_id,
        endpoint_id,
        url,
        None if events is None else list(events),
        state,
        policy,
    )
    return changed is not None


async def close_messages(connection: Connection, tenant_id: int, endpoint_id: int, why: str) -> int:
    """End what waits for an endpoint that is not active, a bounded number a call; how many."""
    return await _in_strokes(connection, QUERIES["close_messages"], tenant_id, endpoint_id, why)


async def close_strays(connection: Connection) -> int:
    """End what was written for endpoints while they were closed; how many."""
    closed = 0
    for row in await connection.fetch(QUERIES["stray_endpoints"]):
        why = f"the endpoint was {row['state']}"
        closed += await close_messages(connection, row["tenant_id"], row["endpoint_id"], why)
    return closed


async def add_test_message(
    connection: Connection, tenant_id: int, endpoint_id: int, event_type: str
) -> int | None:
    """`None`: there is no such endpoint, or it is not active."""
    added: int | None = await connection.fetchval(
        QUERIES["insert_test_message"], tenant_id, endpoint_id, event_type
    )
    return added


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
    arguments = (tenant_id, endpoint_id, before, limit)
    if state is None:
        rows = await connection.fetch(QUERIES["list_messages"], *arguments)
    else:
        rows = await connection.fetch(QUERIES["list_messages_in_state"], *arguments, state)
    return [
        WebhookMessage(
            message_id=row["message_id"],
            event_id=row["event_id"],
            type=row["type"],
            state=MessageState(row["state"]),
            attempt=row["attempt"],
            attempts=msgspec.json.decode(row["attempts"], type=list[WebhookAttempt]),
            payload=msgspec.Raw(row["body"].encode()),
            created_at=row["created_at"],
            next_attempt_at=row["next_attempt_at"],
            finished_at=row["finished_at"],
        )
        for row in rows
    ]


async def replay_message(connection: Connection, tenant_id: int, endpoint_id: int, message_id: int) -> bool:
    """False: it is pending, or there is none."""
    done = await connection.execute(QUERIES["replay_message"], tenant_id, endpoint_id, message_id)
    return done != "UPDATE 0"


async def replay_messages(
    connection: Connection, tenant_id: int, endpoint_id: int, state: MessageState
) -> int:
    """Send those in this state again, a bounded number a call; how many."""
    return await _in_strokes(connection, QUERIES["replay_messages"], tenant_id, endpoint_id, state)


async def _in_strokes(connection: Connection, query: str, *arguments: object) -> int:
    """Each stroke commits by itself."""
    total = 0
    for _ in range(_MOST_STROKES):
        done = int((await connection.execute(query, *arguments)).rpartition(" ")[2])
        total += done
        if done < _STROKE:
            break
    return total


async def due_endpoints(connection: Connection) -> list[tuple[int, int]]:
    """Tenant and endpoint of each that has something to be told now."""
    rows = await connection.fetch(QUERIES["due_endpoints"])
    return [(row["tenant_id"], row["endpoint_id"]) for row in rows]


async def claim_message(
    connection: Connection,
    tenant_id: int,
    endpoint_id: int,
    *,
    lease: float,
    standard_lease: float | None = None,
) -> Claimed | None:
    """One due message; after `lease` seconds without `record_attempt` it is due again.

    `standard_lease` is that of endpoints with the policy `standard`; None: the same.
    """
    row = await connection.fetchrow(
        QUERIES["claim_message"],
        tenant_id,
        endpoint_id,
        timedelta(seconds=lease),
        timedelta(seconds=lease if standard_lease is None else standard_lease),
    )
    if row is None:
        return None
    found = dict(row) | {"policy": Policy(row["policy"])}
    return Claimed(tenant_id=tenant_id, endpoint_id=endpoint_id, **found)


async def record_attempt(
    connection: Connection,
    claimed: Claimed,
    attempt: WebhookAttempt,
    verdict: Verdict,
    *,
    patience: float | None = None,
    why: str = "",
) -> bool:
    """Whether the endpoint is disabled by it; nothing happens if the lease ran out, and somebody else has it.

    `patience`: seconds for which an endpoint may fail before it is disabled, and `why` it then is; None: for ever.
    """
    disabled = await connection.fetchval(
        QUERIES["record_attempt"],
        claimed.tenant_id,
        claimed.message_id,
        claimed.attempt,
        verdict.state,
        timedelta(seconds=verdict.wait),
        msgspec.json.encode(attempt).decode(),
        MOST_ATTEMPTS_KEPT,
        attempt.at,
        verdict.state is MessageState.OK,
        attempt.detail if verdict.disable else None,
        None if patience is None else timedelta(seconds=patience),
        why,
    )
    return bool(disabled)


async def tell_disabled(connection: Connection, tenant_id: int, endpoint_id: int, why: str) -> None:
    """Emit `webhook.disabled`; within the transaction that disables it."""
    await connection.execute(QUERIES["tell_disabled"], tenant_id, endpoint_id, why)


async def forget_messages(connection: Connection, tenant_id: int, retention: float) -> int:
    """Drop settled messages past their time, a bounded number a call; how many."""
    return await _in_strokes(connection, QUERIES["forget_messages"], tenant_id, timedelta(seconds=retention))
