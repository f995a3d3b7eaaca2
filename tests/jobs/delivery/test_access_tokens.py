"""Tokens that expire, are replaced at each use and are revoked: deliveries go on, and who may not, is told why."""

import asyncio
import base64
import itertools
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from app import telemetry
from app.destinations import service
from app.destinations.credentials import (
    BasicCredentials,
    ClientCredentials,
    Credentials,
    HeaderCredentials,
    RefreshTokenCredentials,
    SalesforceJwt,
)
from app.kit.encryption import Vault
from app.sandbox import ANY, KINDS, open_sandbox
from app.secret_rotation.service import rotate
from jobs.worker import working
from tests.conftest import LOOPBACK
from tests.jobs.breaker.test_circuits import until
from tests.jobs.conftest import Sandbox, World, people

_names = itertools.count(1)


@pytest.fixture
def asked() -> Any:
    """How calls to token endpoints ended."""
    found: list[str] = []

    def hook(event: telemetry.Event) -> None:
        if isinstance(event, telemetry.AccessTokenAsked):
            found.append(event.outcome)

    telemetry.HOOKS.append(hook)
    yield found
    telemetry.HOOKS.remove(hook)


class Account:
    """A stand-in with a token endpoint."""

    def __init__(self, kind: str, url: str, session: aiohttp.ClientSession) -> None:
        self.kind = kind
        self.url = url
        self.sandbox = Sandbox(url, session)
        self._session = session

    async def oauth(self, **client: Any) -> None:
        """The application that may ask for tokens, from now on."""
        async with self._session.put(f"{self.url}/__sandbox__/oauth", json=client) as answer:
            assert answer.status == 200, await answer.text()

    async def revoke(self, *, refresh: bool = False) -> None:
        await self._session.post(f"{self.url}/__sandbox__/oauth/revoke?refresh={int(refresh)}")

    async def seen(self) -> dict[str, Any]:
        async with self._session.get(f"{self.url}/__sandbox__/oauth") as answer:
            found: dict[str, Any] = await answer.json()
            return found


@asynccontextmanager
async def account(kind: str) -> AsyncIterator[Account]:
    async with open_sandbox(kind, fields=[ANY]) as url, aiohttp.ClientSession() as session:
        yield Account(kind, url, session)


async def connect(world: World, account: Account, credentials: Credentials) -> str:
    """The one destination of the tenant from now on; its name."""
    name = f"crm{next(_names)}"
    async with world.database.connection() as connection:
        for found in await service.list_destinations(connection, world.tenant_id):
            await service.set_destination_state(connection, world.tenant_id, found.name, "removed")
        await service.add_destination(
            connection,
            Vault(world.settings.secret_key),
            world.tenant_id,
            service.NewDestination(
                name=name,
                kind=account.kind,
                base_url=account.url,
                credentials=credentials,
                options={**KINDS[account.kind]().options, "batch_size": 20},
            ),
            private=LOOPBACK,
        )
    return name


async def shown(world: World) -> service.Destination:
    async with world.database.connection() as connection:
        [found] = await service.list_destinations(connection, world.tenant_id)
        return found


async def written(account: Account) -> list[str]:
    return sorted(effect["key"] for effect in await account.sandbox.effects() if effect["changed"])


def refreshed(account: Account, token: str = "first") -> RefreshTokenCredentials:
    path = {"hubspot": "/oauth/v1/token", "salesforce": "/services/oauth2/token"}.get(account.kind, "/oauth/token")
    return RefreshTokenCredentials(
        token_url=account.url + path, client_id="app", client_secret="app-secret", refresh_token=token
    )


@pytest.mark.parametrize("kind", ["hubspot", "http"])
async def test_a_token_is_renewed_once_for_all_workers_before_it_expires(
    world: World, kind: str, asked: list[str]
) -> None:
    async with account(kind) as crm, AsyncExitStack() as workers:
        await crm.oauth(refresh_token="first", rotates=True, lifetime=2.0)
        await connect(world, crm, refreshed(crm))
        world.settings = msgspec.structs.replace(world.settings, chunk_size=20, delivery_concurrency=4)
        for _ in range(2):
            await workers.enter_async_context(working(world.settings))
        began = asyncio.get_running_loop().time()
        jobs = []
        for start in range(0, 1_200, 60):
            jobs.append(await world.push(people(60, start)))
            await asyncio.sleep(0.3)
        for job in jobs:
            assert await world.finished(job.job_id) == "completed"
        lasted = asyncio.get_running_loop().time() - began
        seen = await crm.seen()
        assert await written(crm) == [f"c{i:05}" for i in range(1_200)]
        # A token of two seconds is renewed after 1.9.
        assert 2 <= seen["issued"] <= lasted / 1.9 + 2, seen
        assert set(asked) == {"ok"}
        found = await shown(world)
        assert found.credentials.type == "oauth2_refresh_token"
        assert found.credentials.expires_at is not None


async def test_a_token_whose_life_nobody_told_is_renewed_after_a_401(world: World, asked: list[str]) -> None:
    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    public = (
        key.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )
    async with account("salesforce") as crm, working(world.settings):
        await crm.oauth(username="ada@example.com", public_key=public, says_lifetime=False)
        credentials = SalesforceJwt(login_url=crm.url, client_id="app", username="ada@example.com", private_key=pem)
        await connect(world, crm, credentials)
        job = await world.push(people(30, last_name="L"))
        assert await world.finished(job.job_id) == "completed"
        assert (await crm.seen())["issued"] == 1
        await crm.revoke()
        job = await world.push(people(30, 30, last_name="L"))
        assert await world.finished(job.job_id) == "completed"
        seen = await crm.seen()
        assert seen["issued"] == 2, "one renewal, whatever number of calls met the 401"
        assert asked == ["ok", "ok"]
        rows = await world.rows("SELECT max(attempt) AS attempts FROM deliveries WHERE tenant_id = $1", world.tenant_id)
        assert rows[0]["attempts"] == 1, "a 401 that a renewal mends is no attempt"


async def test_a_refused_renewal_holds_the_destination_and_says_what_to_do(world: World, asked: list[str]) -> None:
    async with account("hubspot") as crm, working(world.settings):
        await crm.oauth(refresh_token="first")
        name = await connect(world, crm, refreshed(crm, "stolen-refresh-token"))
        job = await world.push(people(50))

        async def held() -> bool:
            return (await shown(world)).error_code == "CIRCUIT_OPEN"

        await until(held)
        found = await shown(world)
        assert "expired access/refresh token" in found.circuit.detail
        assert "tranche destinations connect" in found.circuit.detail
        assert "stolen-refresh-token" not in str(found)
        assert set(await world.effects(job.job_id)) <= {"pending", "retry"}, "nothing is dead"
        assert set(asked) == {"refused"}
        assert (await crm.seen())["refused"] <= 3
        async with world.database.connection() as connection:
            await service.change_destination(
                connection,
                Vault(world.settings.secret_key),
                world.tenant_id,
                name,
                service.DestinationChange(credentials=refreshed(crm, "first")),
                private=LOOPBACK,
            )
        assert await world.finished(job.job_id) == "completed"
        assert len(await written(crm)) == 50


async def test_a_token_endpoint_that_is_away_is_waited_for(world: World, asked: list[str]) -> None:
    async with account("http") as crm, working(world.settings):
        await crm.oauth(fail=1)
        credentials = ClientCredentials(
            token_url=f"{crm.url}/oauth/token", client_id="app", client_secret="app-secret", client_auth="basic"
        )
        await connect(world, crm, credentials)
        job = await world.push(people(10))
        assert await world.finished(job.job_id) == "completed"
        assert asked == ["failed", "ok"]


async def test_a_lost_answer_of_the_token_endpoint_loses_no_account(world: World) -> None:
    async with account("hubspot") as crm, working(world.settings):
        await crm.oauth(refresh_token="first", rotates=True, lose=1)
        await connect(world, crm, refreshed(crm))
        job = await world.push(people(10))
        assert await world.finished(job.job_id) == "completed"
        assert (await crm.seen())["issued"] == 2


async def test_a_rotation_of_our_key_loses_no_token_that_comes_meanwhile(world: World) -> None:
    """The refresh token that was used is good no more: the one that came for it must be stored."""
    async with account("hubspot") as crm:
        await crm.oauth(refresh_token="first", rotates=True, latency=0.5, lifetime=1.0)
        await connect(world, crm, refreshed(crm))
        keys = f"{base64.b64encode(os.urandom(32)).decode()},{world.settings.secret_key}"
        settings = msgspec.structs.replace(world.settings, secret_key=keys)
        async with working(settings):
            job = await world.push(people(10))
            async with world.database.connection() as connection:
                for _ in range(8):
                    await asyncio.sleep(0.1)
                    await rotate(connection, Vault(keys))
            assert await world.finished(job.job_id) == "completed"
            job = await world.push(people(10, 10))
            assert await world.finished(job.job_id) == "completed"


@pytest.mark.parametrize(
    "credentials",
    [
        BasicCredentials(username="ada", password="pass word ü"),
        HeaderCredentials(headers={"X-Api-Key": "key-1", "X-Acme-App-Id": "app-1"}),
    ],
)
async def test_users_and_headers(world: World, credentials: Credentials) -> None:
    async with account("http") as crm, working(world.settings):
        await connect(world, crm, credentials)
        job = await world.push(people(10))
        assert await world.finished(job.job_id) == "completed"
        assert (await shown(world)).credentials.type == msgspec.to_builtins(credentials)["type"]
