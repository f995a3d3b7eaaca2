"""`tranche tenants` and `tranche keys`: what an operator does on the database itself."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any

import pytest

from app.settings import Settings


class Shell:
    """The command line of an operator."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._folder = folder
        self._environ = os.environ | {
            "TRANCHE_DATABASE_URL": settings.database_url,
            "TRANCHE_REDIS_URL": settings.redis_url,
            "PYTHONPATH": os.getcwd(),
            "COLUMNS": "200",
        }

    async def run(self, *arguments: str) -> tuple[int, str]:
        """Exit code and output, of errors too."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "app.cli.main",
            *arguments,
            stdout=PIPE,
            stderr=PIPE,
            env=self._environ,
            cwd=self._folder,
        )
        out, err = await process.communicate()
        return process.returncode or 0, (out + err).decode()

    async def read(self, *arguments: str) -> Any:
        code, out = await self.run(*arguments, "--json")
        assert code == 0, out
        return json.loads(out)


@pytest.fixture
def shell(settings: Settings, tmp_path: Path) -> Shell:
    return Shell(settings, tmp_path)


async def test_a_key_from_its_making_to_its_end(shell: Shell) -> None:
    code, made = await shell.run(
        "keys", "create", "--tenant", "acme", "--scopes", "import", "--name", "nightly", "--expires-in", "90d"
    )
    assert (code, made[:4]) == (0, "trn_")
    (key,) = await shell.read("keys", "list")
    assert (key["name"], key["scopes"], key["previous_until"]) == ("nightly", ["import"], None)
    assert key["expires_at"] > key["created_at"]
    rotated = await shell.read("keys", "rotate", made.strip(), "--keep", "1h")
    assert rotated["key_id"] == key["key_id"]
    assert rotated["key"] != made.strip()
    changed = await shell.read("keys", "change", key["key_id"], "--name", "hourly", "--never-expires")
    assert (changed["name"], changed["expires_at"]) == ("hourly", None)
    code, out = await shell.run("keys", "list", "--tenant", "acme")
    header, row = out.splitlines()
    assert header.split() == "KEY TENANT SCOPES CREATED EXPIRES LAST USED STATE LIMITS NAME".split()
    assert row.endswith("hourly")
    assert "rotated" in row
    assert await shell.read("keys", "revoke", rotated["key"]) == {"key_id": key["key_id"], "state": "revoked"}
    code, out = await shell.run("keys", "rotate", key["key_id"])
    assert (code, out) == (2, "tranche: This API key is revoked; make another one.\n")


async def test_a_tenant_is_disabled_and_enabled(shell: Shell) -> None:
    assert (await shell.read("tenants", "create", "acme"))["keys"] == 0
    assert await shell.run("tenants", "disable", "acme") == (0, "acme is disabled\n")
    code, out = await shell.run("tenants", "list")
    assert code == 0
    assert "disabled 20" in out
    assert await shell.run("tenants", "enable", "acme") == (0, "acme is active\n")
    code, out = await shell.run("tenants", "disable", "nobody")
    assert (code, "`tranche tenants list` shows them" in out) == (2, True)


async def test_limits_are_given_changed_and_taken_back(shell: Shell) -> None:
    """Of a key when it is made and later; of a tenant beside its share of the workers."""
    code, made = await shell.run(
        "keys", "create", "--tenant", "acme", "--limit", "items=60000/60", "--limit", "requests=600/60"
    )
    assert code == 0
    code, out = await shell.run("keys", "list")
    assert "items 60000/60, requests 600/60" in out
    changed = await shell.read("keys", "change", made.strip(), "--limit", "items=default", "--limit", "requests=0")
    assert changed["limits"] == {"requests": {"quota": 0, "window_seconds": 1}}
    tenant = await shell.read("tenants", "change", "acme", "--limit", "items=5/1", "--weight", "2.5", "--cap", "3")
    assert tenant["limits"] == {"items": {"quota": 5, "window_seconds": 1}}
    assert (tenant["weight"], tenant["worker_cap"]) == (2.5, 3)
    code, out = await shell.run("tenants", "list")
    assert out.split()[-4:] == ["items", "5/1", "2.5", "3"]
    assert (await shell.read("tenants", "change", "acme", "--cap", "0"))["worker_cap"] is None
    code, out = await shell.run("tenants", "change", "acme")
    assert (code, "There is nothing to change" in out) == (2, True)


@pytest.mark.parametrize(
    "limit", ["items", "items=", "items=5", "items=5/0", "items=-1/5", "calls=5/1", "items=5/100000"]
)
async def test_a_limit_that_makes_no_sense_is_refused(shell: Shell, limit: str) -> None:
    code, out = await shell.run("keys", "create", "--tenant", "acme", "--limit", limit)
    assert (code, "is no limit" in out) == (2, True)


@pytest.mark.parametrize("span", ["90", "d", "-1d", "1y", "9999999d"])
async def test_a_span_that_is_none_is_refused_with_an_example(shell: Shell, span: str) -> None:
    code, out = await shell.run("keys", "create", "--tenant", "acme", "--expires-in", span)
    assert code == 2
    assert "90d, 12h or 30m" in out
