"""What a read costs the process that answers it: `python -m tests.bench.reads`.

Polls of a job and reads of a record go to the application itself, without a server before it, on engines of its own.
With `--beside FOLDER` the same is done with the application of another checkout, in turns, each in a process that was
started anew; the figures are the medians of processor time a request, and the difference is that of the medians.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from app.auth import service
from app.embedded import Engines
from app.kit.postgres.database import Database
from app.main import create_app
from app.migrations.runner import migrate
from app.settings import Settings

HERE = Path(__file__).parents[2]
RECORDS = 200
SECRET_KEY = "A" * 43 + "="


async def call(app: Any, method: str, path: str, key: str, body: bytes = b"", **fields: str) -> tuple[int, bytes]:
    headers = {"authorization": f"Bearer {key}", **fields}
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80), "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }  # fmt: skip
    waiting = [{"type": "http.request", "body": body, "more_body": False}]
    status, parts = 0, b""

    async def receive() -> Any:
        return waiting.pop() if waiting else await asyncio.Event().wait()

    async def send(message: Any) -> None:
        nonlocal status, parts
        status = message.get("status", status)
        parts += message.get("body", b"")

    await app(scope, receive, send)
    return status, parts


async def measure(settings: Settings, key: str, requests: int) -> dict[str, float]:
    """Processor time of this process in µs a request."""
    app = create_app(settings)
    async with app.lifespan():
        items = [{"id": f"c{n}", "email": f"c{n}@example.com", "first_name": f"Name {n}"} for n in range(RECORDS)]
        fields = {"idempotency-key": os.urandom(8).hex(), "content-type": "application/json"}
        _, answer = await call(app, "POST", "/v1/contacts:bulk", key, msgspec.json.encode({"items": items}), **fields)
        job = msgspec.json.decode(answer)["job_id"]
        paths = {"job poll": [f"/v1/jobs/{job}"], "record": [f"/v1/contacts/c{n}" for n in range(RECORDS)]}
        spent = {}
        for name, of in paths.items():
            for turn in range(2):  # the first one fills caches
                count = requests if turn else requests // 4
                began = time.process_time()
                for number in range(count):
                    status, _ = await call(app, "GET", of[number % len(of)], key)
                    assert status == 200
                spent[name] = (time.process_time() - began) / count * 1e6
        return spent


async def main(rounds: int, requests: int, beside: Path | None) -> None:
    with tempfile.TemporaryDirectory(prefix="tranche-bench-") as folder:
        async with Engines(Path(folder) / "data") as engines:
            await migrate(engines.urls.database_url)
            settings = Settings(database_url=engines.app_urls.database_url)
            database = Database(settings, application_name="bench")
            async with database.connection() as connection:
                key = await service.create_key(connection, "bench", ["import", "read"])
            await database.close()
            checkouts = {"this": HERE} | ({"other": beside} if beside else {})
            found: dict[str, dict[str, list[float]]] = {name: {} for name in checkouts}
            for _ in range(rounds):
                for name, checkout in checkouts.items():
                    environment = os.environ | {
                        "PYTHONPATH": str(checkout),
                        "TRANCHE_DATABASE_URL": engines.app_urls.database_url,
                        "TRANCHE_REDIS_URL": engines.app_urls.redis_url,
                        "TRANCHE_SECRET_KEY": SECRET_KEY,
                        "TRANCHE_LOG_LEVEL": "warning",
                        "BENCH_KEY": key,
                    }
                    argv = [sys.executable, __file__, "--worker", "--requests", str(requests)]
                    ran = await asyncio.to_thread(
                        subprocess.run, argv, env=environment, cwd=checkout, stdout=subprocess.PIPE, check=True
                    )
                    for what, spent in msgspec.json.decode(ran.stdout).items():
                        found[name].setdefault(what, []).append(spent)
    print("| request | checkout | median µs of processor | least |\n|---|---|---:|---:|")
    for what in found["this"]:
        for name, figures in found.items():
            print(f"| {what} | {name} | {statistics.median(figures[what]):.0f} | {min(figures[what]):.0f} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--requests", type=int, default=2_000)
    parser.add_argument("--beside", type=Path)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        from app import settings as settings_module
        from app import telemetry

        loaded = settings_module.load()
        telemetry.configure(loaded)
        print(msgspec.json.encode(uvloop.run(measure(loaded, os.environ["BENCH_KEY"], arguments.requests))).decode())
    else:
        uvloop.run(main(arguments.rounds, arguments.requests, arguments.beside))
