"""`tranche destinations connect`: an account allows an application, and its refresh token is used from then on."""

import asyncio
import re
import sys
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest

from app.destinations.credentials import RefreshTokenCredentials, read
from app.kit.encryption import Vault
from app.sandbox import open_sandbox
from app.settings import Settings
from tests.bench.rig import free_port
from tests.http.conftest import Api, serve

ADDRESS = re.compile(r"https?://\S+")


class Command:
    """The command as a process, until it asks for a browser."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def address(self) -> str:
        assert self.process.stderr is not None
        async with asyncio.timeout(45):
            while line := await self.process.stderr.readline():
                if found := ADDRESS.search(line.decode()):
                    return found[0]
        raise AssertionError("it printed no URL")

    async def end(self) -> tuple[int | None, str]:
        async with asyncio.timeout(45):
            out, error = await self.process.communicate()
        return self.process.returncode, (out + error).decode()


async def run(api: Api, *words: str, port: int) -> Command:
    return Command(
        await asyncio.create_subprocess_exec(
            sys.executable, "-m", "app.cli.main", "destinations", "connect", *words, "--url", api.url,
            "--key", str(api.key), "--redirect-uri", f"http://127.0.0.1:{port}/callback", "--timeout", "40",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )
    )  # fmt: skip


async def test_an_account_is_connected(settings: Settings, api_key: str, db: Any, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("app-secret\n")
    async with open_sandbox("hubspot") as crm, serve(settings) as url, aiohttp.ClientSession() as session:
        api = Api(session, url, api_key)
        await session.put(f"{crm}/__sandbox__/oauth", json={})
        port = free_port()
        command = await run(
            api, "crm", "--kind", "hubspot", "--base-url", crm, "--client-id", "app",
            "--client-secret-file", str(secret), "--authorize-url", f"{crm}/oauth/authorize", "--scope", "a b",
            port=port,
        )  # fmt: skip
        address = await command.address()
        query = parse_qs(urlsplit(address).query)
        assert query["code_challenge_method"] == ["S256"]
        assert query["scope"] == ["a b"]
        async with session.get(f"http://127.0.0.1:{port}/callback?code=x&state=forged") as answer:
            assert answer.status == 400, "whoever forges an answer changes nothing"
        async with session.get(address) as answer:  # allowed, and sent back to the loopback port
            assert answer.status == 200
            assert "Connected" in await answer.text()
        code, words = await command.end()
        assert code == 0, words
        assert "connected crm" in words
        shown = (await api.get("/v1/destinations/crm")).json()
        assert shown["credentials"] == {"type": "oauth2_refresh_token", "expires_at": None}
        row = await db.fetchrow("SELECT tenant_id, credentials FROM destinations WHERE name = 'crm'")
        sealed = Vault(settings.secret_key).open(
            row["credentials"], tenant_id=row["tenant_id"], name="crm", address=crm
        )
        async with session.get(f"{crm}/__sandbox__/oauth") as answer:
            known = (await answer.json())["refresh_token"]
        assert read(sealed).credentials == RefreshTokenCredentials(
            token_url=f"{crm}/oauth/v1/token", client_id="app", client_secret="app-secret", refresh_token=known
        )


@pytest.mark.parametrize(
    ("query", "words"), [("error=access_denied&error_description=no", "access_denied: no"), ("", "there is no code")]
)
async def test_who_does_not_allow_it_is_told_so(settings: Settings, api_key: str, query: str, words: str) -> None:
    async with open_sandbox("hubspot") as crm, serve(settings) as url, aiohttp.ClientSession() as session:
        port = free_port()
        command = await run(
            Api(session, url, api_key), "crm", "--kind", "hubspot", "--base-url", crm, "--client-id", "app", port=port
        )
        state = parse_qs(urlsplit(await command.address()).query)["state"][0]
        await session.get(f"http://127.0.0.1:{port}/callback?state={state}&{query}")
        code, shown = await command.end()
        assert code == 2
        assert words in shown
