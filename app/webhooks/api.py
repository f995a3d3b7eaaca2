"""`/v1/webhook-endpoints`: who receives events. Secrets are shown once, when they are created."""

from functools import partial
from typing import Annotated, Final

import msgspec

from app.auth.authorization import ADMIN
from app.http.cursors import Cursor, NextCursor, Number
from app.http.encryption_key import open_vault
from app.http.operation import Answer, Reply, operation
from app.http.parameters import Page, number_path
from app.http.principal import Principal
from app.kit.postgres.database import Connection, Database
from app.settings import Settings
from app.webhooks import service
from app.webhooks.queries import WebhookEndpoint, WebhookMessage, list_endpoints
from app.webhooks.rules import TEST_EVENT, MessageState
from app.webhooks.service import MOST_ENDPOINTS, NewWebhookEndpoint, WebhookEndpointChange, WebhookSecret

PATH: Final = "/v1/webhook-endpoints"
_ENDPOINT: Final = PATH + "/{endpoint_id}"
_MESSAGE: Final = _ENDPOINT + "/messages/{message_id}"
_operation: Final = partial(operation, tag="webhooks", access=ADMIN)
_NO_STORE: Final = "no-store"
_CURSOR: Final = Cursor[int]("webhook messages", Number)


class WebhookEndpointList(msgspec.Struct):
    endpoints: list[WebhookEndpoint]


class WebhookMessageList(msgspec.Struct):
    """A page of messages, newest first; `next_cursor` is null on the last one."""

    messages: list[WebhookMessage]
    next_cursor: NextCursor


class WebhookRotation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a secret is changed."""

    keep_seconds: Annotated[float, msgspec.Meta(ge=0, le=service.MOST_KEPT)] | None = None
    """For how long the secret before signs as well; absent: as the service is set up."""


class WebhookReplay(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which messages are sent again."""

    state: MessageState


class WebhooksReplayed(msgspec.Struct, frozen=True):
    """How many messages are sent again; of very many only a part, so repeat it until it is 0."""

    replayed: int


class MessagePage(Page, frozen=True, kw_only=True):
    state: MessageState | None = None
    """Only messages in this state."""


EndpointId = Annotated[int, number_path("The endpoint.", 7, below=2**31, missing="There is no such webhook endpoint.")]
MessageId = Annotated[
    int, number_path("The message.", 4711, below=2**63, missing="There is no such message at this endpoint.")
]


@_operation("GET", PATH, answers=Answer("All of them."))
async def list_webhook_endpoints(principal: Principal, connection: Connection) -> WebhookEndpointList:
    """The tenant's webhook endpoints."""
    return WebhookEndpointList(await list_endpoints(connection, principal.tenant_id))


@_operation(
    "POST",
    PATH,
    description=lambda settings: (
        "It receives future events, signed with a secret that only this answer shows. At most "
        f"{MOST_ENDPOINTS} per tenant."
    ),
    answers=Answer("It is there.", 201, headers=("Location",), cache=_NO_STORE),
    keyed=True,
)
async def add_webhook_endpoint(
    body: NewWebhookEndpoint, principal: Principal, settings: Settings, database: Database
) -> Reply[WebhookSecret]:
    """Add a webhook endpoint."""
    made = await service.add(
        database, open_vault(settings), settings, principal.tenant_id, body, actor=principal.key_id
    )
    return Reply(made, 201, {"Location": f"{PATH}/{made.endpoint_id}"})


@_operation("GET", _ENDPOINT, answers=Answer("The endpoint."))
async def read_webhook_endpoint(
    endpoint_id: EndpointId, principal: Principal, connection: Connection
) -> WebhookEndpoint:
    """One webhook endpoint."""
    return await service.read(connection, principal.tenant_id, endpoint_id)


@_operation("PATCH", _ENDPOINT, answers=Answer("The endpoint."))
async def change_webhook_endpoint(
    endpoint_id: EndpointId, body: WebhookEndpointChange, principal: Principal, settings: Settings, database: Database
) -> WebhookEndpoint:
    """Change, disable or enable a webhook endpoint.

    A disabled one receives nothing: waiting messages become `failed`, and events that happen meanwhile are not kept
    for it.
    """
    return await service.change(database, settings, principal.tenant_id, endpoint_id, body, actor=principal.key_id)


@_operation("DELETE", _ENDPOINT, answers=Answer("It is gone.", 204))
async def remove_webhook_endpoint(endpoint_id: EndpointId, principal: Principal, database: Database) -> None:
    """Remove a webhook endpoint.

    What still waits for it becomes `failed`.
    """
    await service.remove(database, principal.tenant_id, endpoint_id, actor=principal.key_id)


@_operation(
    "POST",
    _ENDPOINT + "/rotate",
    description=lambda settings: (
        f"For `keep_seconds` ({settings.webhook_rotation:g} by default, at most {service.MOST_KEPT}) the previous "
        "secret signs as well, so that receivers can change over; with 0 it ends at once."
    ),
    answers=Answer("The endpoint with its new secret.", cache=_NO_STORE),
    keyed=True,
)
async def rotate_webhook_secret(
    endpoint_id: EndpointId, body: WebhookRotation | None, principal: Principal, settings: Settings, database: Database
) -> WebhookSecret:
    """Give a webhook endpoint a new secret."""
    keep = settings.webhook_rotation if body is None or body.keep_seconds is None else body.keep_seconds
    return await service.rotate(
        database, open_vault(settings), principal.tenant_id, endpoint_id, keep=keep, actor=principal.key_id
    )


@_operation(
    "POST",
    _ENDPOINT + "/test",
    description=lambda settings: f"A `{TEST_EVENT}`, whatever the endpoint listens to; the message shows the result.",
    answers=Answer("It will be sent.", 202, headers=("Location",)),
    errors=(409,),
    keyed=True,
)
async def test_webhook_endpoint(
    endpoint_id: EndpointId, principal: Principal, database: Database
) -> Reply[WebhookMessage]:
    """Send a test event."""
    message = await service.send_test(database, principal.tenant_id, endpoint_id)
    return Reply(message, 202, {"Location": f"{PATH}/{endpoint_id}/messages/{message.message_id}"})


@_operation(
    "GET",
    _ENDPOINT + "/messages",
    description=lambda settings: (
        f"With every attempt. Messages that are settled are kept for {settings.webhook_retention / 86_400:g} days."
    ),
    answers=Answer("A page of messages."),
)
async def list_webhook_messages(
    endpoint_id: EndpointId, query: MessagePage, principal: Principal, connection: Connection
) -> WebhookMessageList:
    """Messages to an endpoint, newest first."""
    found, more = await service.read_messages(
        connection,
        principal.tenant_id,
        endpoint_id,
        state=query.state,
        before=_CURSOR.decode(query.cursor),
        limit=query.limit,
    )
    return WebhookMessageList(found, _CURSOR.encode(more))


@_operation("GET", _MESSAGE, answers=Answer("The message."))
async def read_webhook_message(
    endpoint_id: EndpointId, message_id: MessageId, principal: Principal, connection: Connection
) -> WebhookMessage:
    """One message with its attempts."""
    return await service.read_message(connection, principal.tenant_id, endpoint_id, message_id)


@_operation("POST", _MESSAGE + "/replay", answers=Answer("The message."), errors=(409,), keyed=True)
async def replay_webhook_message(
    endpoint_id: EndpointId, message_id: MessageId, principal: Principal, database: Database
) -> WebhookMessage:
    """Send a message again.

    Under the same event id, with all attempts again. A pending message is left as it is.
    """
    return await service.replay_message(database, principal.tenant_id, endpoint_id, message_id)


@_operation("POST", _ENDPOINT + "/replay", answers=Answer("How many."), errors=(409,), keyed=True)
async def replay_webhook_messages(
    endpoint_id: EndpointId, body: WebhookReplay, principal: Principal, database: Database
) -> WebhooksReplayed:
    """Replay messages that did not arrive.

    All messages of an endpoint that are `dead` or `failed`, under their event ids. If there are very many, only a
    part is replayed: repeat until `replayed` is 0.
    """
    return WebhooksReplayed(await service.replay_messages(database, principal.tenant_id, endpoint_id, body.state))
