"""What the Containerfile and the compose file say, done by processes: the same steps, commands, roles and environment.

No container engine is needed. The commands are read from the files, so a file that names what is no longer there fails.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import aiohttp
import asyncpg
import msgspec
import pytest

from app.embedded import Child, Engines
from app.embedded.binaries import find_postgres
from tests.acceptance.harness import Part, free_port, until
from tests.conftest import with_path
from tests.deployment import COMPOSE, DEPLOY, ROOT, compose, copied, healthcheck
from tests.jobs.conftest import people

pytestmark = pytest.mark.slow

_CONFINE: Final = """
mount --make-rprivate / && mount -o remount,ro,bind / && mount -t tmpfs tmpfs "$TMPDIR" &&
exec setpriv --no-new-privs --bounding-set=-all "$@"
"""
"""Read-only root, a tmpfs, no capabilities: as the compose file has it."""


def confinement() -> list[str]:
    """The words before a command that confine it; none where this system does not allow that."""
    words = ["unshare", "--mount", "sh", "-c", _CONFINE, "sh"]
    with tempfile.TemporaryDirectory() as folder:
        tried = subprocess.run([*words, "true"], env=os.environ | {"TMPDIR": folder}, capture_output=True)
    return words if tried.returncode == 0 else []


class Host:
    """Where the services run: programs of the image in `folder`, each service with its own environment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.parts: list[Part] = []
        self._confined = confinement()

    def build(self) -> None:
        """Install the distribution as the image has it: built from what is copied into the build, not editable."""
        source, wheels = self.folder / "src", self.folder / "wheels"
        for path in copied():
            copy = shutil.copytree if (ROOT / path).is_dir() else shutil.copy
            (source / path).parent.mkdir(parents=True, exist_ok=True)
            copy(ROOT / path, source / path)
        pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
        subprocess.run([*pip, "wheel", "--no-build-isolation", "--no-deps", "-w", wheels, source], check=True)
        site = self.folder / "site"
        subprocess.run([*pip, "install", "--no-deps", "--target", site, *wheels.glob("*.whl")], check=True)

    def start(self, name: str, command: list[str], environment: dict[str, str]) -> Part:
        """Start a command of the image; no setting of this process reaches it."""
        tmp = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.folder))
        program = shutil.which(command[0], path=f"{self.folder}/site/bin:{Path(sys.executable).parent}")
        assert program is not None
        env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(self.folder / "site"), "TMPDIR": str(tmp)} | environment
        confined = [str(shutil.which(self._confined[0])), *self._confined[1:]] if self._confined else []
        log = self.folder / f"{name}.log"
        part = Part(Child.spawn([*confined, program, *command[1:]], name=name, env=env, cwd=Path("/"), log=log), log)
        self.parts.append(part)
        return part

    async def run(self, name: str, command: list[str], environment: dict[str, str]) -> tuple[int, str]:
        part = self.start(name, command, environment)
        return await part.ends(120), part.text()


async def furnish(engines: Engines, service: dict[str, Any], variables: dict[str, str]) -> str:
    """Make the database as the service `postgres` does when it starts for the first time; returns its URL."""
    environment = service["environment"]
    url = with_path(engines.urls.database_url, environment["POSTGRES_DB"])
    admin = await asyncpg.connect(with_path(url, "postgres"))
    await admin.execute(f"DROP DATABASE IF EXISTS {environment['POSTGRES_DB']}")
    await admin.execute("DROP ROLE tranche_app")  # the embedded engine makes it; here the files must
    await admin.execute(f"CREATE DATABASE {environment['POSTGRES_DB']}")
    await admin.close()
    psql = find_postgres(None).program("psql")
    for volume in service["volumes"]:
        source, target, *_ = volume.split(":")
        if target.startswith("/docker-entrypoint-initdb.d/"):
            words = [psql, "-v", "ON_ERROR_STOP=1", "--no-psqlrc", "-f", DEPLOY / source, url]
            subprocess.run(words, env=os.environ | variables, check=True, capture_output=True)
    return url


async def test_the_steps_of_the_compose_file(folder: Path) -> None:
    host = Host(folder)
    made = subprocess.run(["sh", DEPLOY / "make-env.sh"], capture_output=True, text=True, check=True).stdout
    variables = dict(re.findall(r"^(\w+)=(.+)$", made, re.MULTILINE))
    services = compose(variables)["services"]
    host.build()
    ports = {"8000": str(free_port()), "8001": str(free_port())}
    crm_port = str(free_port())
    api, worker = (f"http://127.0.0.1:{port}" for port in ports.values())
    token = {"Authorization": f"Bearer {variables['TRANCHE_METRICS_TOKEN']}"}

    async with Engines(folder / "engines") as engines, aiohttp.ClientSession() as session:
        url = await furnish(engines, services["postgres"], variables)
        servers = {
            "@postgres:5432": f"@{url.partition('@')[2].partition('/')[0]}",
            "redis://valkey:6379": engines.urls.redis_url.rpartition("/")[0],
        }

        def here(name: str) -> tuple[list[str], dict[str, str]]:
            """Command and environment of a service, with the ports of this machine."""
            environment = services[name]["environment"]
            for there, near in servers.items():
                environment = {key: value.replace(there, near) for key, value in environment.items()}
            environment = {key: ports.get(value, value) for key, value in environment.items()}
            environment["TRANCHE_DESTINATION_PRIVATE"] = "127.0.0.0/8"
            return [ports.get(word, word) for word in services[name]["command"]], environment

        async def healthy(port: str) -> bool:
            words = [
                ports[port] if word == port else word for word in healthcheck() if word == port or word[:4] != "800"
            ]
            words = [
                word.replace("/opt/tranche/healthcheck.py", f"{host.folder}/src/deploy/healthcheck.py")
                for word in words
            ]
            return (await host.run(f"healthcheck-{port}", words, {}))[0] == 0

        try:
            code, said = await host.run("migrate", *here("migrate"))
            assert (code, "applied" in said) == (0, True), said
            assert not await healthy("8000")
            crm = host.start("crm", ["tranche", "sandbox-crm", "--field", "*", "--port", crm_port], {})
            serving, working = host.start("api", *here("api")), host.start("worker", *here("worker"))
            for port in ports:
                await until(lambda port=port: healthy(port), 90, every=0.5)

            create, environment = here("api")[0], here("api")[1]
            (create,) = re.findall(r"exec api (tranche keys create .*)", COMPOSE.read_text())
            code, said = await host.run("keys", create.split(), environment)
            assert code == 0, said
            (key,) = re.findall(r"\btrn_\w+", said)
            client = {"Authorization": f"Bearer {key}"}
            new = {"name": "crm", "kind": "hubspot", "base_url": f"http://127.0.0.1:{crm_port}", "token": "pat-x"}
            async with session.post(f"{api}/v1/destinations", json=new, headers=client) as answer:
                assert answer.status == 201, await answer.text()
            headers = client | {"Idempotency-Key": "first", "Prefer": "wait=30"}
            async with session.post(f"{api}/v1/contacts:bulk", json={"items": people(20)}, headers=headers) as answer:
                document = msgspec.json.decode(await answer.read())
                assert answer.status == 207, document

            async def delivered() -> bool:
                async with session.get(f"{api}/v1/jobs/{document['job_id']}", headers=client) as answer:
                    return msgspec.json.decode(await answer.read())["effects"]["crm"]["ok"] == 20

            await until(delivered)
            for url in (api, worker):
                async with session.get(f"{url}/metrics", headers=token) as answer:
                    assert "\ntranche_" in await answer.text(), f"{url} has no metrics"

            for part, name in ((serving, "api"), (working, "worker")):
                part.child.send_signal(15)
                assert await part.ends(float(services[name]["stop_grace_period"][:-1])) == 0, part.text()
            assert crm.child.returncode is None
        finally:
            for part in reversed(host.parts):
                await part.child.stop(5)
                print(f"--- {part.log.name}\n{part.text()[-2000:]}")
