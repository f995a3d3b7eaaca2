"""`/v1/webhook-endpoints`: who is told of events. Secrets are shown once, when they are made."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

import msgspec
from litestar import Request, delete, get, patch, post
from litestar.response.base import ASGIResponse

from app import admin, webhooks
from app.db.webhooks import WebhookEndpoint, WebhookMessage, list_endpoints
from app.domain.webhooks import MessageState
from app.errors import Invalid, NotFound
from app.http import cursors, headers
from app.http.cursors import NextCursor
from app.http.headers import Fields
from app.http.json_bodies import read_json
from app.http.services import Services, authorize, respond, services_of, vault_of
from app.webhooks import NewWebhookEndpoint, WebhookEndpointChange, WebhookSecret

PATH: Final = "/v1/webhook-endpoints"
PAGE: Final = 100
MOST: Final = 1_000
_ADMIN: Final = frozenset({"admin"})
_REMEDY: Final = "What is told of a webhook endpoint is a small thing."
_LIST: Final = "webhook messages"

_encode: Final = msgspec.json.Encoder().encode


class WebhookEndpointList(msgspec.Struct):
    endpoints: list[WebhookEndpoint]


class WebhookMessageList(msgspec.Struct):
    """A page of messages, newest first; `next_cursor` is null on the last one."""

    messages: list[WebhookMessage]
    next_cursor: NextCursor


class WebhookRotation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a secret is changed."""

    keep_seconds: Annotated[float, msgspec.Meta(ge=0, le=webhooks.MOST_KEPT)] | None = None
    """For how long the secret before signs as well; absent: as the service is set up."""


class WebhookReplay(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which messages are sent again."""

    state: MessageState


class WebhooksReplayed(msgspec.Struct, frozen=True):
    """How many messages are sent again; of very many only a part, so repeat it until it is 0."""

    replayed: int


@get(PATH)
async def list_webhook_endpoints(request: Request[Any, Any, Any]) -> ASGIResponse:
    services, principal = await _begin(request)
    async with services.database.connection() as connection:
        found = await list_endpoints(connection, principal.tenant_id)
    return respond(_encode(WebhookEndpointList(found)))


@post(PATH)
async def add_webhook_endpoint(request: Request[Any, Any, Any]) -> ASGIResponse:
    services, principal = await _begin(request)
    new = await read_json(request, services, NewWebhookEndpoint, remedy=_REMEDY)
    made = await webhooks.add(
        services.database,
        vault_of(services),
        services.settings,
        principal.tenant_id,
        new,
        actor=principal.key_id,
    )
    return _show(made, 201)


@get(PATH + "/{endpoint_id:str}")
async def read_webhook_endpoint(request: Request[Any, Any, Any]) -> ASGIResponse:
    services, principal = await _begin(request)
    async with services.database.connection() as connection:
        return respond(_encode(await webhooks.read(connection, principal.tenant_id, _endpoint(request))))


@patch(PATH + "/{endpoint_id:str}")
async def change_webhook_endpoint(request: Request[Any, Any, Any]) -> ASGIResponse:
    services, principal = await _begin(request)
    wanted = await read_json(request, services, WebhookEndpointChange, remedy=_REMEDY)
    changed = await webhooks.change(
        services.database,
        services.settings,
        principal.tenant_id,
        _endpoint(request),
        wanted,
        actor=principal.key_id,
    )
    return respond(_encode(changed))


@delete(PATH + "/{endpoint_id:str}", status_code=200)
async def remove_webhook_endpoint(request: Request[Any, Any, Any]) -> ASGIResponse:
    """204: what still waited for it is marked failed."""
    services, principal = await _begin(request)
    await webhooks.remove(services.database, principal.tenant_id, _endpoint(request), actor=principal.key_id)
    return respond(b"", 204)


@post(PATH + "/{endpoint_id:str}/rotate", status_code=200)
async def rotate_webhook_secret(request: Request[Any, Any, Any]) -> ASGIResponse:
    services, principal = await _begin(request)
    asked = await read_json(request, services, WebhookRotation, remedy=_REMEDY, absent=WebhookRotation())
    keep = services.settings.webhook_rotation if asked.keep_seconds is None else asked.keep_seconds
    made = await webhooks.rotate(
        services.database,
        vault_of(services),
        principal.tenant_id,
        _endpoint(request),
        keep=keep,
        actor=principal.key_id,
    )
    return _show(made, 200)


@post(PATH + "/{endpoint_id:str}/test", status_code=200)
async def test_webhook_endpoint(request: Request[Any, Any, Any]) -> ASGIResponse:
    services, principal = await _begin(request)
    message = await webhooks.send_test(services.database, principal.tenant_id, _endpoint(request))
    where = f"{PATH}/{_endpoint(request)}/messages/{message.message_id}"
    return respond(_encode(message), 202, headers={"Location": where})


@get(PATH + "/{endpoint_id:str}/messages")
async def list_webhook_messages(request: Request[Any, Any, Any]) -> ASGIResponse:
    services, principal = await _begin(request, ("state", "limit", "cursor"))
    query = headers.read_query(request.scope, ("state", "limit", "cursor"))
    limit = headers.read_limit(query, default=PAGE, most=MOST)
    before = cursors.decode_number(query["cursor"], _LIST) if "cursor" in query else None
    async with services.database.connection() as connection:
        found, more = await webhooks.read_messages(
            connection,
            principal.tenant_id,
            _endpoint(request),
            state=_state(query["state"]) if "state" in query else None,
            before=before,
            limit=limit,
        )
    cursor = None if more is None else cursors.encode_number(more, _LIST)
    return respond(
        _encode(WebhookMessageList(found, cursor)), headers=cursors.link_next(request.scope, query, cursor)
    )


@get(PATH + "/{endpoint_id:str}/messages/{message_id:str}")
async def read_webhook_message(request: Request[Any, Any, Any]) -> ASGIResponse:
    services, principal = await _begin(request)
    async with services.database.connection() as connection:
        found = await webhooks.read_message(
            connection, principal.tenant_id, _endpoint(request), _message(request)
        )
    return respond(_encode(found))


@post(PATH + "/{endpoint_id:str}/messages/{message_id:str}/replay", status_code=200)
async def replay_webhook_message(request: Request[Any, Any, Any]) -> ASGIResponse:
    services, principal = await _begin(request)
    message = await webhooks.replay_message(
        services.database, principal.tenant_id, _endpoint(request), _message(request)
    )
    return respond(_encode(message))


@post(PATH + "/{endpoint_id:str}/replay", status_code=200)
async def replay_webhook_messages(request: Request[Any, Any, Any]) -> ASGIResponse:
    services, principal = await _begin(request)
    asked = await read_json(request, services, WebhookReplay, remedy=_REMEDY)
    count = await webhooks.replay_messages(
        services.database, principal.tenant_id, _endpoint(request), asked.state
    )
    return respond(_encode(WebhooksReplayed(count)))


async def _begin(
    request: Request[Any, Any, Any], parameters: tuple[str, ...] = ()
) -> tuple[Services, admin.Principal]:
    services = services_of(request)
    fields = Fields(request.scope["headers"])
    principal = await authorize(request, fields, services, _ADMIN)
    headers.choose_type(fields)
    headers.read_query(request.scope, parameters)
    return services, principal


def _endpoint(request: Request[Any, Any, Any]) -> int:
    return _number(request.path_params["endpoint_id"], 2**31, "There is no such webhook endpoint.")


def _message(request: Request[Any, Any, Any]) -> int:
    return _number(request.path_params["message_id"], 2**63, "There is no such message at this endpoint.")


def _number(text: str, below: int, missing: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,18}", text) or int(text) >= below:
        raise NotFound(missing)
    return int(text)


def _state(text: str) -> MessageState:
    try:
        return MessageState(text)
    except ValueError:
        raise Invalid(f"state is one of {', '.join(MessageState)}.") from None


def _show(made: WebhookSecret, status: int) -> ASGIResponse:
    fields = {"Cache-Control": "no-store"}
    if status == 201:
        fields["Location"] = f"{PATH}/{made.endpoint_id}"
    return respond(_encode(made), status, headers=fields)
