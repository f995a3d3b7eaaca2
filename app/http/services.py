"""What the handlers of one process work with; the composition root makes it, nothing global holds it."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import Any, Final

from litestar import Request
from litestar.response.base import ASGIResponse
from redis.asyncio import Redis

from app import admin
from app.db.pool import Database
from app.db.turns import ACTING
from app.errors import Forbidden, SettingsError, Unauthorized
from app.http.bodies import Drains
from app.http.cors import Cors
from app.http.engines import Engines
from app.http.errors import SecretKeyMissing
from app.http.exchange import exchange_of
from app.http.figures import Figures
from app.http.headers import JSON, Fields
from app.http.intake import Intake
from app.http.last_used import LastUsed
from app.http.ownership import JobOwners
from app.http.principals import Principals
from app.http.refusals import Refusals
from app.http.views import JobViews
from app.http.watcher import JobWatcher
from app.settings import Settings
from app.vault import Vault
from app.wake import Waker
from app.workers import WorkerWatch

STATE_KEY: Final = "services"
UNKNOWN_KEY: Final = "This API key is unknown, revoked or misspelled."


@dataclass(slots=True)
class Services:
    settings: Settings
    database: Database
    waker: Waker
    watcher: JobWatcher
    views: JobViews
    principals: Principals
    owners: JobOwners
    last_used: LastUsed
    figures: Figures
    cors: Cors
    workers: WorkerWatch
    redis: Redis
    """For health checks; wake-ups have their own."""
    engines: Engines
    intake: Intake
    drains: Drains
    refusals: Refusals

    def may_be_good(self, secret: str) -> bool:
        """Whether this may be a key, or is a token of the operator; for a look before anything else is done."""
        tokens = (self.settings.operator_token, self.settings.metrics_token)
        return self.principals.may_be_good(secret) or any(
            token and hmac.compare_digest(secret.encode(), token.encode()) for token in tokens
        )


def services_of(request: Request[Any, Any, Any]) -> Services:
    services: Services = request.app.state[STATE_KEY]
    return services


def vault_of(services: Services) -> Vault:
    """
    Raises:
        SecretKeyMissing: this service has no key, or one that is none, so it can keep no secret.
    """
    try:
        return Vault(services.settings.secret_key)
    except SettingsError as error:
        raise SecretKeyMissing("" if not services.settings.secret_key else error.detail) from error


READING: Final = frozenset({"read", "import", "admin"})
"""Who may read jobs and idempotency keys: `import` alone those that it asked for itself (`app.http.ownership`)."""


async def authorize(
    request: Request[Any, Any, Any],
    fields: Fields,
    services: Services,
    scopes: frozenset[str],
    *,
    recent: bool = False,
) -> admin.Principal:
    """Who asks, if its key has one of `scopes`.

    The database is asked each time, so that a revoked key is out at once; for polls, which change nothing and come in
    thousands, an answer of the last second is good enough (`recent`).

    Raises:
        Unauthorized: there is no key, or it is unknown, revoked or misspelled.
        Forbidden: the key has none of the scopes.
    """
    principal = await identify(request, fields, services, recent=recent)
    if principal is None:
        raise Unauthorized()
    if not scopes & principal.scopes:
        raise Forbidden(f"This needs a key with the scope {' or '.join(sorted(scopes))}.")
    return principal


async def identify(
    request: Request[Any, Any, Any], fields: Fields, services: Services, *, recent: bool = False
) -> admin.Principal | None:
    """Who asks; `None` without a key.

    Raises:
        Unauthorized: there is a key, but it is no good.
    """
    sent = fields.one("authorization")
    if sent is None:
        return None
    exchange = exchange_of(request.scope)
    exchange.presented = True
    scheme, _, token = sent.partition(" ")
    if scheme.lower() != "bearer":
        raise Unauthorized()
    principal = await services.principals.find(token.strip(), recent=recent)
    if principal is None:
        raise Unauthorized(UNKNOWN_KEY)
    ACTING.set(principal.tenant_id)
    exchange.tenant_id, exchange.key_id = principal.tenant_id, principal.key_id
    services.last_used.note(principal.tenant_id, principal.key_id)
    return principal


def respond(
    body: bytes, status: int = 200, *, headers: dict[str, str] | None = None, media_type: str = JSON
) -> ASGIResponse:
    return ASGIResponse(body=body, status_code=status, headers=headers, media_type=media_type)
