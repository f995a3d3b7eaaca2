"""Makes the data of this folder: what the release at revision 0003 wrote, with work in every state.

Not a test. It needs that release (the last commit before revision 0004) installed in an environment of its own, an
empty database, an empty Redis, and `pg_dump`:

    python make.py TRANCHE DATABASE_URL REDIS_URL PG_DUMP

where TRANCHE is the command of that release. It writes `data.sql`, the rows, and `answers.json`, what the API of that
release answered about them. The keys in there are of no service.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
from aiohttp import web

HERE = Path(__file__).parent
API, HUBSPOT, SALESFORCE, RECEIVER = 18700, 18701, 18702, 18703
URL = f"http://127.0.0.1:{API}"
SETTINGS = {
    "SECRET_KEY": base64.b64encode(bytes(range(32))).decode(),
    "LOG_LEVEL": "error",
    "MAX_SYNC_ITEMS": "20",
    "IMPORT_CHUNK_ITEMS": "10",
    "CHUNK_SIZE": "5",
    "DELIVERY_ATTEMPTS": "3",
    "DELIVERY_BACKOFF_BASE": "0.05",
    "DELIVERY_BACKOFF_CAP": "0.1",
    "RECONCILE_GRACE": "0.3",
    "SWEEP_INTERVAL": "0.3",
    "SAGA_INTERVAL": "0.2",
    "CRM_TOTAL_TIMEOUT": "5",
    "BREAKER_MIN_CALLS": "1000",
    "WEBHOOK_PRIVATE": "127.0.0.0/8",
    "WEBHOOK_WAITS": "0.2,36000",
    "IDEMPOTENCY_RETENTION": "2000000000",
}


class Service:
    """Processes of that release, and what its API was asked."""

    def __init__(self, program: str, database_url: str, redis_url: str) -> None:
        self._program = program
        self._environ = os.environ | {f"TRANCHE_{name}": value for name, value in SETTINGS.items()}
        self._environ |= {"TRANCHE_DATABASE_URL": database_url, "TRANCHE_REDIS_URL": redis_url}
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.http: aiohttp.ClientSession
        self.database: asyncpg.Connection[Any]
        self.keys: dict[str, str] = {}
        self.requests: list[dict[str, Any]] = []
        self.jobs: dict[str, str] = {}
        """Name → id."""

    def run(self, *words: str) -> str:
        done = subprocess.run([self._program, *words], env=self._environ, check=True, stdout=subprocess.PIPE, text=True)
        return done.stdout.strip()

    def start(self, name: str, *words: str) -> None:
        self.running[name] = subprocess.Popen([self._program, *words], env=self._environ, start_new_session=True)

    def kill(self, name: str) -> None:
        process = self.running.pop(name)
        os.killpg(process.pid, signal.SIGKILL)  # with the processes that serve for it
        process.wait()

    async def serve(self) -> None:
        self.start("api", "serve", "--port", str(API))
        await self.until("the API", self._is_ready)

    async def _is_ready(self) -> bool:
        try:
            async with self.http.get(URL + "/health/live") as response:
                return response.status == 200
        except aiohttp.ClientError:
            return False

    async def until(self, what: str, holds: Callable[[], Any], seconds: float = 60.0) -> None:
        for _ in range(int(seconds * 10)):
            if await holds():
                return
            await asyncio.sleep(0.1)
        raise SystemExit(f"in vain: {what}")

    async def call(self, method: str, path: str, body: Any = None, *, tenant: str = "acme") -> Any:
        headers = {"Authorization": f"Bearer {self.keys[tenant]}"}
        async with self.http.request(method, URL + path, json=body, headers=headers) as response:
            text = await response.text()
            if response.status >= 400:
                raise SystemExit(f"{method} {path}: {response.status} {text}")
            return json.loads(text) if text else None

    async def send(
        self, name: str, items: Any, query: str = "", *, kind: str = "application/json", tenant: str = "acme"
    ) -> str:
        """An import; its request and answer are kept."""
        body = items if isinstance(items, str) else json.dumps({"items": items}, ensure_ascii=False)
        answer = await self.post(body, f"key-{name}", query, kind, tenant)
        self.jobs[name] = json.loads(answer[1])["job_id"]
        self.requests.append(
            {"name": name, "tenant": tenant, "query": query, "type": kind, "key": f"key-{name}", "body": body}
            | {"status": answer[0], "answer": answer[1]}
        )
        return self.jobs[name]

    async def post(self, body: str, key: str, query: str, kind: str, tenant: str) -> tuple[int, str]:
        headers = {"Authorization": f"Bearer {self.keys[tenant]}", "Idempotency-Key": key, "Content-Type": kind}
        async with self.http.post(f"{URL}/v1/contacts:bulk{query}", data=body.encode(), headers=headers) as response:
            text = await response.text()
            if response.status >= 400:
                raise SystemExit(f"{key}: {response.status} {text}")
            return response.status, text

    async def state(self, name: str, *states: str, tenant: str = "acme") -> None:
        async def reached() -> bool:
            job = await self.call("GET", f"/v1/jobs/{self.jobs[name]}", tenant=tenant)
            return job["state"] in states

        await self.until(f"{name} is {states}", reached)

    async def effect(self, name: str, destination: str, state: str, count: int) -> None:
        async def reached() -> bool:
            job = await self.call("GET", f"/v1/jobs/{self.jobs[name]}")
            return job["effects"][destination].get(state, 0) >= count if destination in job["effects"] else False

        await self.until(f"{name} is {state} at {destination}", reached)

    async def fault(self, port: int, kind: str, **parameters: Any) -> None:
        async with self.http.put(f"http://127.0.0.1:{port}/__sandbox__/faults/{kind}", json=parameters) as response:
            assert response.status == 200, await response.text()

    async def repair(self, port: int, kind: str = "") -> None:
        async with self.http.delete(f"http://127.0.0.1:{port}/__sandbox__/faults{kind}") as response:
            assert response.status == 200, await response.text()


def plain(contact_id: str, **fields: Any) -> dict[str, Any]:
    return {"id": contact_id, "email": f"{contact_id}@example.com", "last_name": "Lovelace", **fields}


def person(number: int | str, **fields: Any) -> dict[str, Any]:
    return plain(f"c{number}", **{"company": "Zürich & Söhne 株式会社", **fields})


def csv(name: str, numbers: range, extra: str = "") -> str:
    rows = [f"{name}{n},{name}{n}@example.com,Ümit {n},gold" for n in numbers]
    return "id,email,last_name,plan\n" + "\n".join(rows) + "\n" + extra


async def finish(service: Service) -> None:
    """Work that comes to its end: each kind of job, each end of a dead letter."""
    done = ("completed", "completed_with_failures")
    people = [
        person(
            n, first_name=f"Ada {n}", phone=f"+49301234{n:02}", source_version=10, attributes={"plan": "gold", "n": n}
        )
        for n in range(1, 13)
    ]
    await service.send("first", people)
    await service.state("first", *done)
    await service.send(
        "second",
        [
            {"id": "c1", "email": "c1@example.com", "phone": None, "attributes": {"plan": None}, "source_version": 11},
            {
                "id": "c2",
                "email": "c2@example.com",
                "company": None,
                "attributes": {"tags": ["ü", "🎉"], "deep": {"a": 1}},
            },
            {"id": "c3", "email": "c3@example.com", "last_name": "late", "source_version": 9},
            {"id": "c4", "email": "c4@example.com"},
            {"id": "c5", "email": "not an address"},
            {"id": "c6", "email": "c6@example.com", "attributes": None, "if_version": 1},
            {"id": "c7", "email": "c7@example.com", "last_name": 'O\'Brien "x" \\ \t', "if_version": 5},
        ],
    )
    await service.state("second", *done)
    await service.send("elsewhere", [person(n, last_name="globex") for n in range(1, 4)], tenant="globex")
    await service.send("dry", [person(1, last_name="dry"), person("x")], "?dry_run=true")
    await service.send("atomic", [person("a1"), person("a2") | {"email": "?"}], "?atomic=true")
    await service.fault(HUBSPOT, "reject", keys=["r1", "r2"], message="no such thing: «ü»")
    await service.send("refused", [plain(f"r{n}") for n in range(1, 5)])
    await service.state("refused", *done)
    await service.repair(HUBSPOT)
    answer = await service.call("POST", f"/v1/jobs/{service.jobs['refused']}/retry")
    service.jobs["retried"] = answer["job_id"]
    await service.state("retried", *done)
    await service.fault(HUBSPOT, "reject", keys=[f"d{n}" for n in range(1, 7)])
    await service.send("refused again", [plain(f"d{n}") for n in range(1, 8)])
    await service.state("refused again", *done)
    await service.repair(HUBSPOT)
    letters = (await service.call("GET", "/v1/dead-letters"))["dead_letters"]
    of = {letter["contact_id"]: letter["id"] for letter in letters}
    await service.call("POST", "/v1/dead-letters/drop", {"ids": [of["d6"]], "reason": "left the company"})
    await service.fault(SALESFORCE, "status", code=500, on="write")
    await service.send("exhausted", [plain(f"e{n}") for n in range(1, 4)])
    await service.state("exhausted", *done)
    await service.repair(SALESFORCE)
    letters = (await service.call("GET", "/v1/dead-letters"))["dead_letters"]
    of = {letter["contact_id"]: letter["id"] for letter in letters}
    answer = await service.call("POST", "/v1/dead-letters/replay", {"ids": [of["e1"]]})
    service.jobs["replayed"] = answer["job_id"]
    await service.state("replayed", *done)
    await service.send("later", [{"id": "e2", "email": "e2@example.com", "last_name": "later"}])
    await service.state("later", *done)

    mistake = [person(n, company="mistake", attributes={"plan": "free"}) for n in (8, 9, 10)]
    await service.send("mistake", [*mistake, *(plain(f"m{n}") for n in range(1, 4))])
    await service.state("mistake", *done)
    await service.send("since", [person(10, company="since")])
    await service.state("since", *done)
    service.jobs["undone"] = (await service.call("POST", f"/v1/jobs/{service.jobs['mistake']}/undo"))["job_id"]
    await service.state("undone", *done)
    await service.send("revived", [{"id": "m2", "email": "m2@example.com", "phone": "+4930999"}])
    await service.state("revived", *done)

    await service.fault(SALESFORCE, "reject", keys=["k2"])
    query = "?consistency=all_destinations"
    await service.send("consistent", [plain(f"k{n}") for n in range(1, 4)], query)
    await service.state("consistent", *done)
    await service.repair(SALESFORCE)
    await service.send("file", csv("f", range(1, 26), "f3,f3@example.com,other,gold\nf40,bad\n"), kind="text/csv")
    await service.state("file", *done)
    await service.send("for undo", csv("u", range(1, 22)), kind="text/csv")
    await service.state("for undo", *done)
    await service.send("for a later undo", csv("v", range(1, 22)), kind="text/csv")
    await service.state("for a later undo", *done)
    await service.call("POST", "/v1/destinations/hubspot/circuit", {"state": "open", "seconds": 0.5})


async def interrupt(service: Service, database_url: str) -> None:
    """Work that is in the middle of something when its worker is killed, or was only asked for."""
    await service.call("POST", "/v1/destinations/salesforce/pause")
    await service.send("waits", [person(11, last_name="waits"), person(12, last_name="waits")])
    await service.effect("waits", "hubspot", "ok", 2)
    query = "?consistency=all_destinations"
    await service.send("waits to be consistent", [plain(f"w{n}") for n in (1, 2)], query)
    await service.effect("waits to be consistent", "hubspot", "ok", 2)
    service.jobs["undo syncing"] = (await service.call("POST", f"/v1/jobs/{service.jobs['for undo']}/undo"))["job_id"]
    await service.state("undo syncing", "syncing")
    await service.effect("undo syncing", "hubspot", "ok", 21)

    holder = await asyncpg.connect(database_url)
    held = holder.transaction()
    await held.start()
    await holder.execute("UPDATE contacts SET mask = mask WHERE contact_id = 'f15' AND tenant_id = 1")
    await service.send(
        "running",
        csv("f", range(1, 41), "f16,f16@example.com,Ümit 16,gold\n").replace("gold", "silver"),
        kind="text/csv",
    )

    async def others_are_done() -> bool:
        statement = "SELECT array_agg(first_index ORDER BY 1) = '{10,40}' FROM spool_chunks WHERE job_id = $1"
        return bool(await service.database.fetchval(statement, service.jobs["running"]))

    await service.until("all chunks but one are applied", others_are_done)
    await service.effect("running", "hubspot", "ok", 30)

    await service.fault(HUBSPOT, "accept_then_drop", on="write")
    await service.fault(HUBSPOT, "status", code=503, on="read")
    await service.send("in doubt", [plain(f"i{n}") for n in range(1, 8)])
    await service.effect("in doubt", "hubspot", "unknown", 7)
    await service.repair(HUBSPOT, "/accept_then_drop")
    await service.fault(HUBSPOT, "slow", latency=4, when="before", on="write")
    await service.send("sending", [plain(f"s{n}") for n in range(1, 8)])

    async def is_sending() -> bool:
        statement = "SELECT count(*) > 0 FROM deliveries WHERE job_id = $1 AND state = 'sending'"
        return bool(await service.database.fetchval(statement, service.jobs["sending"]))

    await service.until("a delivery is under way", is_sending)
    service.kill("worker")
    await held.rollback()
    await holder.close()

    await service.send("queued", csv("q", range(1, 26)), kind="text/csv")
    await service.send(
        "queued with duplicates",
        csv("q", range(20, 41), "q31,q31@example.com,last,free\n"),
        "?on_duplicate=last_wins",
        kind="text/csv",
    )
    lines = [json.dumps(person(f"n{n}", attributes={"ß": [n]}), ensure_ascii=False) for n in range(1, 25)]
    await service.send("queued atomic", "\n".join(lines), "?atomic=true", kind="application/x-ndjson")
    await service.send("canceled", csv("z", range(1, 22)), kind="text/csv")
    await service.call("POST", f"/v1/jobs/{service.jobs['canceled']}/cancel")
    await service.send("accepted", [person(1, last_name="accepted"), person("y1")])
    answer = await service.call("POST", f"/v1/jobs/{service.jobs['for a later undo']}/undo")
    service.jobs["undo queued"] = answer["job_id"]
    letters = (await service.call("GET", "/v1/dead-letters"))["dead_letters"]
    of = {letter["contact_id"]: letter["id"] for letter in letters}
    service.jobs["retrying"] = (await service.call("POST", f"/v1/jobs/{service.jobs['exhausted']}/retry"))["job_id"]
    service.jobs["replaying"] = (await service.call("POST", "/v1/dead-letters/replay", {"ids": [of["d1"], of["d2"]]}))[
        "job_id"
    ]
    await break_uploads(service)


async def break_uploads(service: Service) -> None:
    """A body that cannot be read to its end, and one whose API process is killed while it comes."""
    rows = csv("z", range(1, 41)).encode()
    path = "POST /v1/contacts:bulk HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\nPrefer: respond-async\r\n"
    for name, end in (("failed", b"3\r\n\xff\xfe\xfd\r\n0\r\n\r\n"), ("receiving", b"")):
        reader, writer = await asyncio.open_connection("127.0.0.1", API)
        head = f"{path}Authorization: Bearer {service.keys['acme']}\r\nIdempotency-Key: key-{name}\r\n"
        writer.write(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        writer.write(f"{len(rows):x}\r\n".encode() + rows + b"\r\n")
        await writer.drain()

        async def is_there(name: str = name) -> bool:
            statement = "SELECT job_id::text FROM jobs WHERE request_id <> '' AND state = 'receiving'"
            found = await service.database.fetchval(statement)
            if found:
                service.jobs[name] = found
            return bool(found)

        await service.until(f"{name} is there", is_there)
        if end:
            writer.write(end)
            await writer.drain()
            await reader.read(10)
            await service.state(name, "failed", "canceled")
        else:
            service.kill("api")
        writer.close()
    await asyncio.sleep(1)
    await service.serve()


async def look(service: Service) -> dict[str, Any]:
    """What the API says of all of it."""
    found: dict[str, Any] = {"keys": service.keys, "jobs": service.jobs, "requests": service.requests, "documents": {}}
    for tenant_id, tenant in ((1, "acme"), (2, "globex")):
        ids = await service.database.fetch("SELECT contact_id FROM contacts WHERE tenant_id = $1 ORDER BY 1", tenant_id)
        jobs = await service.database.fetch("SELECT job_id::text FROM jobs WHERE tenant_id = $1 ORDER BY 1", tenant_id)
        paths = [
            "/v1/dead-letters?resolution=any&limit=200",
            "/v1/dead-letters/clusters",
            "/v1/destinations",
            "/v1/webhook-endpoints",
        ]
        paths += [f"/v1/jobs/{job[0]}" for job in jobs] + [f"/v1/jobs/{job[0]}/items?limit=200" for job in jobs]
        documents = {path: await service.call("GET", path, tenant=tenant) for path in paths}
        documents["contacts"] = [await show(service, f"/v1/contacts/{row[0]}", tenant) for row in ids]
        documents["histories"] = [await show(service, f"/v1/contacts/{row[0]}/history", tenant) for row in ids]
        found["documents"][tenant] = documents
    return found


async def show(service: Service, path: str, tenant: str) -> Any:
    headers = {"Authorization": f"Bearer {service.keys[tenant]}"}
    async with service.http.get(URL + path, headers=headers) as response:
        return None if response.status == 404 else await response.json()


def as_lines(found: dict[str, Any]) -> str:
    """JSON with a line for each thing, so that differences can be read."""
    lines = json.dumps(found, ensure_ascii=False, separators=(",", ":"))
    return lines.replace('},{"', '},\n{"').replace(',"/v1/', ',\n"/v1/') + "\n"


async def main(program: str, database_url: str, redis_url: str, pg_dump: str) -> None:
    service = Service(program, database_url, redis_url)
    service.run("migrate")
    for tenant in ("acme", "globex"):
        service.keys[tenant] = service.run("keys", "create", "--tenant", tenant, "--scopes", "import,read,admin")
    calls = 0

    async def receive(request: web.Request) -> web.Response:
        nonlocal calls
        calls += 1
        return web.Response(status=200 if calls <= 6 else 500)

    receiver = web.Application()
    receiver.router.add_post("/hook", receive)
    runner = web.AppRunner(receiver)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", RECEIVER).start()
    service.http = aiohttp.ClientSession()
    service.database = await asyncpg.connect(database_url)
    try:
        for kind, port in (("hubspot", HUBSPOT), ("salesforce", SALESFORCE)):
            service.start(kind, "sandbox-crm", "--kind", kind, "--port", str(port))
        service.start("worker", "worker")
        await service.serve()
        for kind, port in (("hubspot", HUBSPOT), ("salesforce", SALESFORCE)):
            new = {"name": kind, "kind": kind, "base_url": f"http://127.0.0.1:{port}", "token": "sandbox"}
            await service.call("POST", "/v1/destinations", new)
        hook = {"url": f"http://127.0.0.1:{RECEIVER}/hook", "events": ["job.finished"]}
        await service.call("POST", "/v1/webhook-endpoints", hook)
        await finish(service)
        await interrupt(service, database_url)
        found = await look(service)
    finally:
        for name in list(service.running):
            service.kill(name)
        await service.http.close()
        await service.database.close()
        await runner.cleanup()
    (HERE / "answers.json").write_text(as_lines(found), encoding="utf-8")
    words = ["--data-only", "--inserts", "--rows-per-insert=100", "--restrict-key=x", database_url]
    dumped = subprocess.run([pg_dump, *words], check=True, stdout=subprocess.PIPE, text=True).stdout
    lines = [
        line
        for line in dumped.splitlines()
        if line and not line.startswith(("--", "SET ", "\\", "SELECT pg_catalog.set_config"))
    ]
    (HERE / "data.sql").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
