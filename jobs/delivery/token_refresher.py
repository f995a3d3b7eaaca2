"""Renews the access tokens of destinations: one worker asks for one, and all use it.

Before a token expires, and after a 401, a worker claims the destination's row for the time of a call to the token
endpoint. What it gets is stored together with the refresh token that may have come with it, by one statement; whoever
finds the row claimed waits for that.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Final

import asyncpg
import structlog

from app.deliveries.queries import Route
from app.destinations import credentials as domain
from app.destinations.access_tokens import queries
from app.destinations.access_tokens.rules import is_due, is_over
from app.destinations.credentials import Credentials, Grant, Renewed, Stored
from app.errors import SettingsError, TrancheError
from app.kit.encryption import Vault
from app.kit.postgres.database import Connection, Database
from app.telemetry import AccessTokenAsked, emit
from jobs.crm import oauth
from jobs.crm.port import Authorization, NoToken, Timeouts
from jobs.outbound.ssrf import DestinationSessions

log = structlog.get_logger()

_LEASE_MARGIN: Final = 5.0
"""Seconds that a claim outlasts the call that it is for."""
_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 1.0
"""Seconds between two looks at what another worker got."""
_AGAIN: Final = 5.0
"""Seconds for which an answer without a token holds for all calls of this worker."""


class RenewingAuthorizer:
    """That of one destination, for as long as this worker knows it (`jobs.crm.port.Authorizer`)."""

    def __init__(
        self,
        route: Route,
        stored: Stored,
        *,
        database: Database,
        vault: Vault,
        sessions: DestinationSessions,
        timeouts: Timeouts,
    ) -> None:
        self._route = route
        self._database = database
        self._vault = vault
        self._sessions = sessions
        self._timeouts = timeouts
        self._lock = asyncio.Lock()
        self._stored = stored
        self._sealed = route.credentials
        self._failed: tuple[float, NoToken] | None = None
        """Until when an answer without a token holds."""

    @property
    def credentials(self) -> Credentials:
        return self._stored.credentials

    @property
    def secrets(self) -> Sequence[str]:
        """See `jobs.crm.port.Authorizer`."""
        return domain.secrets_of(self._stored)

    def see(self, sealed: bytes, stored: Stored) -> None:
        """What is stored now."""
        if sealed != self._sealed:
            self._sealed, self._stored, self._failed = sealed, stored, None

    async def authorize(self) -> Authorization | NoToken:
        """See `jobs.crm.port.Authorizer`."""
        if not is_due(self._stored.grant, time.time()):
            return self._show(self._stored.grant)
        async with self._lock:
            grant = self._stored.grant
            if not is_due(grant, time.time()):
                return self._show(grant)
            missing = await self._refresh()
            grant = self._stored.grant
            # One that ends soon is good enough for as long as there is no other.
            return missing if missing is not None and is_over(grant, time.time()) else self._show(grant)

    async def renew(self, used: Authorization) -> Authorization | NoToken:
        """See `jobs.crm.port.Authorizer`."""
        async with self._lock:
            grant = self._stored.grant
            if grant is None or grant.access_token == used.token:
                missing = await self._refresh()
                if missing is not None:
                    return missing
            return self._show(self._stored.grant)

    def _show(self, grant: Grant | None) -> Authorization | NoToken:
        if grant is None:
            return NoToken(detail="there is no access token")
        same = grant.instance_url is not None and _scheme(grant.instance_url) == _scheme(self._route.base_url)
        base_url = grant.instance_url if same and self._route.kind == "salesforce" else None
        return Authorization(token=grant.access_token, base_url=base_url)

    async def _refresh(self) -> NoToken | None:
        """Have another grant than the present one; else why there is none."""
        if self._failed is not None and time.monotonic() < self._failed[0]:
            return self._failed[1]
        before = self._stored.grant
        try:
            missing = await self._ask_or_wait(before)
        except (TrancheError, asyncpg.PostgresError) as error:
            log.warning("access_token_not_renewed", destination_id=self._route.destination_id, error=error)
            missing = NoToken(detail="the access token could not be renewed, because the database is in trouble")
        self._failed = None if missing is None else (time.monotonic() + _AGAIN, missing)
        return missing

    async def _ask_or_wait(self, before: Grant | None) -> NoToken | None:
        """Ask, or wait for what another worker gets."""
        tenant_id, destination_id = self._route.tenant_id, self._route.destination_id
        lease, pause = self._timeouts.total + _LEASE_MARGIN, _PAUSE
        until = time.monotonic() + self._timeouts.total
        while True:
            async with self._database.connection() as connection:
                claimed = await queries.claim_refresh(connection, tenant_id, destination_id, self._sealed, lease)
                sealed = self._sealed if claimed else await queries.read_sealed(connection, tenant_id, destination_id)
            if claimed:
                return await self._ask()
            if sealed is None:
                return NoToken(detail="the destination was removed")
            if sealed != self._sealed:
                self.see(sealed, self._open(sealed))
                grant = self._stored.grant
                if grant is not None and (before is None or grant.access_token != before.access_token):
                    return None
                continue  # other credentials, or the same under another key
            if time.monotonic() > until:
                return NoToken(detail="another worker has been asking for an access token for too long")
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _ask(self) -> NoToken | None:
        tenant_id, destination_id = self._route.tenant_id, self._route.destination_id
        credentials = self._stored.credentials
        if not isinstance(credentials, Renewed):
            return NoToken(detail="its credentials were changed to some that are not renewed")
        began = time.monotonic()
        # To its end, whatever becomes of the call that waits for it: a refresh token may be good for this one use.
        answer = await asyncio.shield(self._ask_and_store(credentials))
        refused = isinstance(answer, NoToken) and bool(answer.remedy)
        outcome = "refused" if refused else "failed" if answer is not None else "ok"
        emit(AccessTokenAsked(kind=self._route.kind, outcome=outcome, seconds=time.monotonic() - began))
        if answer is not None:
            log.warning(
                "access_token_refused" if refused else "access_token_failed",
                tenant_id=tenant_id,
                destination_id=destination_id,
                detail=answer.detail,
            )
        return answer

    async def _ask_and_store(self, credentials: Renewed) -> NoToken | None:
        tenant_id, destination_id = self._route.tenant_id, self._route.destination_id
        answer = await oauth.ask(self._sessions.to, credentials, self._timeouts)
        async with self._database.connection() as connection:
            if isinstance(answer, NoToken):
                await queries.release_refresh(connection, tenant_id, destination_id, self._sealed)
                return answer
            while not await self._store(connection, answer.stored):
                sealed = await queries.read_sealed(connection, tenant_id, destination_id)
                known = None if sealed is None else self._open(sealed)
                if sealed is None or known is None or known.credentials != credentials:
                    # Somebody gave it other credentials meanwhile: those count.
                    if sealed is not None and known is not None:
                        self.see(sealed, known)
                    return NoToken(detail="its credentials were changed meanwhile")
                self._sealed = sealed  # the same, encrypted with another key
        return None

    async def _store(self, connection: Connection, stored: Stored) -> bool:
        route = self._route
        anew = self._vault.seal(
            domain.write(stored), tenant_id=route.tenant_id, name=route.name, address=route.base_url
        )
        expires_at = stored.grant.expires_at if stored.grant is not None else None
        if not await queries.store_grant(
            connection, route.tenant_id, route.destination_id, self._sealed, anew, expires_at
        ):
            return False
        self._sealed, self._stored = anew, stored
        return True

    def _open(self, sealed: bytes) -> Stored:
        return open_credentials(self._vault, self._route, sealed)


def open_credentials(vault: Vault, route: Route, sealed: bytes) -> Stored:
    """
    Raises:
        SettingsError: this worker has not the key, or an older release than the one that wrote them.
    """
    text = vault.open(sealed, tenant_id=route.tenant_id, name=route.name, address=route.base_url)
    try:
        return domain.read(text)
    except ValueError as error:
        raise SettingsError(f"destination {route.name!r}: {error}") from error


def _scheme(url: str) -> str:
    return url.partition(":")[0]
