"""`tranche up`: everything by one command, data that survives any end, and no process left behind."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import psutil
import pytest

from app.settings import Settings
from tests.acceptance.harness import Part, environment, free_port, people, processes, run, start, until

KEY = re.compile(r"trn_\w+")


class Up:
    """`tranche up --sandbox` on one data folder and one pair of ports, started as often as wanted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.port = free_port()
        self.sandbox_port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.env = environment(Settings(), TRANCHE_SWEEP_INTERVAL="0.3", TRANCHE_DELIVERY_LEASE="5")
        self.parts: list[Part] = []

    def begin(self, *more: str, port: int | None = None, sandbox_port: int | None = None) -> Part:
        words = ["up", "--data-dir", str(self.data), "--port", str(port or self.port)]
        words += ["--sandbox", "--sandbox-port", str(sandbox_port or self.sandbox_port), *more]
        part = start(self.folder, "up", words, self.env)
        self.parts.append(part)
        return part

    async def start(self) -> tuple[Part, str | None]:
        """Up, and the key if it told one."""
        part = self.begin()
        told = await part.says("Ctrl-C stops everything")
        assert f"Tranche is up at {self.url}" in told
        found = KEY.findall(told)
        return part, found[0] if found else None

    async def ask(self, method: str, path: str, key: str, **options: Any) -> Any:
        headers = {"Authorization": f"Bearer {key}"} | options.pop("headers", {})
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, self.url + path, headers=headers, **options) as answer,
        ):
            assert answer.status in (200, 207), await answer.text()
            return await answer.json()

    async def push(self, key: str, count: int, start: int = 0) -> str:
        body = {"items": people(count, start=start)}
        told = await self.ask(
            "POST", "/v1/contacts:bulk", key, json=body, headers={"Idempotency-Key": f"k{start}", "Prefer": "wait=20"}
        )
        assert told["effects"] == {"db": "ok", "hubspot": "ok"}
        return str(told["job_id"])

    async def command(self, *words: str) -> tuple[int, str]:
        """A command that knows nothing but the data folder."""
        return await run(self.folder, words, self.env | {"TRANCHE_DATA_DIR": str(self.data)})

    async def gone(self, seconds: float) -> None:
        """No process is left that was told of this folder."""

        async def look() -> bool:
            return not processes(self.folder)

        await until(look, seconds, every=0.1)


@pytest.fixture
async def up(folder: Path) -> AsyncIterator[Up]:
    folder.chmod(0o711)  # as root the engines run as somebody else
    made = Up(folder)
    yield made
    for part in made.parts:
        await part.child.stop(40)
        print(f"--- {part.log.name}\n{part.text()[-3000:]}")
    await made.gone(60)


async def test_data_survives_every_end(up: Up) -> None:
    """SIGTERM, then kill -9 of every process, then of `up` alone: contacts, jobs and the key are still there."""
    first, key = await up.start()
    assert key is not None
    assert first.text().count("API key") == 1
    jobs = [await up.push(key, 5)]
    first.child.send_signal(signal.SIGTERM)
    assert await first.ends() == 0
    await up.gone(5)

    second, again = await up.start()
    assert again is None, "the key is shown once"
    jobs.append(await up.push(key, 5, start=100))
    for process in _family(second.pid):
        with suppress(psutil.NoSuchProcess):
            process.kill()
    assert await second.ends() == -signal.SIGKILL
    await up.gone(60)

    third, again = await up.start()
    assert again is None
    jobs.append(await up.push(key, 5, start=200))
    os.kill(third.pid, signal.SIGKILL)  # the rest has to find out by itself
    await up.gone(60)
    assert await third.ends() == -signal.SIGKILL

    await up.start()
    listed = (await up.ask("GET", "/v1/jobs", key))["jobs"]
    assert [job["job_id"] for job in listed] == jobs[::-1]
    assert {job["state"] for job in listed} == {"completed"}
    for record_id in ("c00004", "c00104", "c00204"):
        contact = await up.ask("GET", f"/v1/contacts/{record_id}", key)
        assert contact["version"] == 1
        assert contact["destinations"]["hubspot"]["state"] == "ok"
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{up.sandbox_port}/__sandbox__/ledger") as answer,
    ):
        assert (await answer.json())["total"] == 15


async def test_interrupt_second_start_and_commands(up: Up) -> None:
    """While one is up, a second on its folder is told so and commands find the database; Ctrl-C ends it all."""
    part, key = await up.start()
    assert key is not None
    rival = up.begin(port=free_port(), sandbox_port=free_port())
    assert await rival.ends() == 2
    assert str(part.pid) in rival.text()
    _is_one_clear_line(rival.text())

    code, told = await up.command("keys", "create", "--tenant", "default", "--scopes", "read")
    assert code == 0
    made = KEY.findall(told)[0]
    assert (await up.ask("GET", "/v1/jobs", made))["jobs"] == []
    code, told = await up.command("keys", "list", "--json")
    assert (code, told.count('"key_id"')) == (0, 2)
    code, told = await up.command("destinations", "list")
    assert code == 0
    assert f"http://127.0.0.1:{up.sandbox_port}" in told
    code, told = await up.command("keys", "revoke", made)
    assert code == 0
    with pytest.raises(AssertionError, match="UNAUTHORIZED"):
        await up.ask("GET", "/v1/jobs", made)

    part.child.send_signal(signal.SIGINT)
    assert await part.ends() == 0
    await up.gone(5)
    code, told = await up.command("keys", "list")
    assert code == 2
    assert "nothing is up" in told
    _is_one_clear_line(told)


@pytest.mark.parametrize("whose", ["port", "sandbox_port"])
async def test_a_taken_port_is_told(up: Up, whose: str) -> None:
    """Another program has the port: one clear line with its number, exit code 2, nothing left running."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        number = getattr(up, whose)
        taken.bind(("127.0.0.1", number))
        taken.listen()
        part = up.begin()
        assert await part.ends() == 2
    assert str(number) in part.text()
    _is_one_clear_line(part.text())
    await up.gone(5)


@pytest.mark.parametrize("after", [0.3, 1.2])
async def test_stopped_while_starting(up: Up, after: float) -> None:
    """SIGTERM before it was up: it ends, nothing stays, and the next start works."""
    part = up.begin()
    await asyncio.sleep(after)
    part.child.send_signal(signal.SIGTERM)
    assert await part.ends() in (0, -signal.SIGTERM)  # very early there is nobody yet to hear it
    await up.gone(5)
    if after > 1:
        _, key = await up.start()
        assert key is not None


async def test_a_part_that_ends_is_started_again(up: Up) -> None:
    """The worker or the API is killed: both are back by themselves, and work goes on."""
    part, key = await up.start()
    assert key is not None
    for process in [_serving(part.pid, "worker"), _serving(part.pid, "serve")]:
        process.kill()

    async def back() -> bool:
        with suppress(LookupError, aiohttp.ClientError, AssertionError):
            names = {name for name in ("worker", "serve") if _serving(part.pid, name)}
            return len(names) == 2 and bool(await up.ask("GET", "/v1/jobs", key))
        return False

    await until(back)
    await up.push(key, 5)


@pytest.mark.parametrize("engine", ["valkey", "postgres"])
async def test_an_engine_that_ends_is_started_again(up: Up, engine: str) -> None:
    """Killed as the kernel kills who takes too much memory; what was acknowledged is there, and work goes on."""
    part, key = await up.start()
    assert key is not None
    await up.push(key, 5)
    (killed,) = _engine(part.pid, engine)
    killed.kill()

    async def back() -> bool:
        with suppress(OSError, aiohttp.ClientError, AssertionError, msgspec.DecodeError, psutil.Error):
            now = _engine(part.pid, engine)
            health = await up.ask("GET", "/health", key)
            return now != [] and now != [killed] and health["status"] == "pass"
        return False

    await until(back)
    assert "engine_ended" in part.text()
    await up.push(key, 5, start=100)
    contact = await up.ask("GET", "/v1/contacts/c00000", key)
    assert contact["version"] == 1


def _engine(pid: int, name: str) -> list[psutil.Process]:
    """The process that leads this engine, if there is one among a process's descendants."""
    those = [process for process in _family(pid) if process.name().startswith(name)]
    return [process for process in those if process.parent() not in those]


def _family(pid: int) -> list[psutil.Process]:
    """A process and all its descendants, the engines too."""
    leader = psutil.Process(pid)
    return [leader, *leader.children(recursive=True)]


def _serving(pid: int, command: str) -> psutil.Process:
    """The process that runs `tranche COMMAND` for `up`."""
    for process in psutil.Process(pid).children():
        with suppress(psutil.Error):
            words = process.cmdline()
            if "app.cli.main" in words and words[words.index("app.cli.main") + 1] == command:
                return process
    raise LookupError(command)


def _is_one_clear_line(output: str) -> None:
    said = [line for line in output.splitlines() if line.startswith("tranche: ")]
    assert len(said) == 1, output
    assert "Traceback" not in output
    assert "Error" not in said[0]
