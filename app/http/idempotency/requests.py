"""A request under an idempotency key: done once, and answered again with the same bytes.

All that it does is one transaction with its stored answer (`Database.unit`): it either committed both, or nothing
happened and the key is free. The answer may show a secret, so it is stored encrypted.
"""

import hashlib
from collections.abc import Awaitable, Callable
from typing import Final

import asyncpg
import msgspec

from app.errors import KeyBusy, KeyExpired, KeyReused, Overloaded, SettingsError
from app.http.encryption_key import open_vault
from app.http.idempotency import queries
from app.kit.encryption import Vault
from app.kit.notifier import Notifier
from app.kit.postgres.database import Connection, Database
from app.kit.postgres.transactions import COLLIDED
from app.settings import Settings

_KIND: Final = "idempotency key"
_BUSY_SECONDS: Final = 1.0


class KeyedRequest(msgspec.Struct, frozen=True):
    """Who asks for what under which key."""

    tenant_id: int
    route: str
    key: str
    fingerprint: bytes


class StoredAnswer(msgspec.Struct, frozen=True):
    """What is sent, and sent again."""

    headers: dict[str, str]
    body: str
    status: int


def fingerprint(*parts: bytes) -> bytes:
    """Distinguishes requests under one key."""
    return hashlib.sha256(b"\0".join(hashlib.sha256(part).digest() for part in parts)).digest()


async def run_once(
    database: Database,
    notifier: Notifier,
    settings: Settings,
    request: KeyedRequest,
    work: Callable[[], Awaitable[StoredAnswer]],
) -> tuple[StoredAnswer, bool]:
    """The answer of this request, and whether it is one of before.

    Raises:
        KeyBusy: the first request with this key is still running.
        KeyReused: it was another one.
        KeyExpired: its answer is no longer kept, or was encrypted with a key that this service no longer has.
        SecretKeyMissing: the service cannot encrypt.
        Overloaded: others were in the way of this transaction.
        whatever `work` raises; nothing happened then, and the key is free.
    """
    vault = open_vault(settings)
    try:
        with notifier.held():
            async with database.unit() as connection:
                if stored := await _find(connection, vault, request):
                    return stored, True
                answer = await work()
                sealed = vault.seal(
                    msgspec.json.encode(answer).decode(),
                    tenant_id=request.tenant_id,
                    name=_name(request),
                    kind=_KIND,
                    address="",
                )
                await queries.store_answer(
                    connection,
                    request.tenant_id,
                    request.route,
                    request.key,
                    request.fingerprint,
                    answer.status,
                    sealed,
                    settings.idempotency_retention,
                )
        return answer, False
    except asyncpg.UniqueViolationError as error:  # of the key: somebody else committed meanwhile
        if error.table_name != "idempotency_keys":
            raise
        raise KeyBusy(retry_after=_BUSY_SECONDS) from error
    except COLLIDED as error:
        raise Overloaded(retry_after=_BUSY_SECONDS) from error


async def _find(connection: Connection, vault: Vault, request: KeyedRequest) -> StoredAnswer | None:
    claim = await queries.claim_request(connection, request.tenant_id, request.route, request.key)
    if claim.fingerprint is None:
        if not claim.claimed:
            raise KeyBusy(retry_after=_BUSY_SECONDS)
        return None
    if claim.expired or claim.answer is None:
        raise KeyExpired()
    if claim.fingerprint != request.fingerprint:
        raise KeyReused()
    try:
        text = vault.open(claim.answer, tenant_id=request.tenant_id, name=_name(request), kind=_KIND, address="")
    except SettingsError as error:
        raise KeyExpired() from error
    return msgspec.json.decode(text, type=StoredAnswer)


def _name(request: KeyedRequest) -> str:
    return f"{request.route} {request.key}"
