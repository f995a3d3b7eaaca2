"""A type that a tenant declares beside the built-in contacts: `python -m tests.bench.declared`.

The declared type has the fields of contacts and their rules. Equal batches are imported as one and as the other in
turn, by one client, into one installation with a destination that takes both. The ratio is that of declared to
built-in, of the same round.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import uvloop

from tests.bench import rig
from tests.bench.__main__ import BATCH, Run, timed

TEXT = {"type": "string", "maxLength": 255}
PEOPLE = {
    "singular": "person",
    "schema": {
        "type": "object",
        "properties": {
            "email": {"type": "string", "format": "email"},
            "first_name": TEXT,
            "last_name": TEXT,
            "phone": {"type": "string", "format": "phone"},
            "company": TEXT,
        },
        "required": ["email"],
    },
    "attributes": True,
}


async def declare(session: aiohttp.ClientSession, url: str, key: str) -> None:
    headers = {"Authorization": f"Bearer {key}"}
    async with session.put(f"{url}/v1/resource-types/people", json=PEOPLE, headers=headers) as answer:
        if not answer.ok:
            raise RuntimeError(f"{answer.status}: {await answer.text()}")


async def main(rounds: int, batches: int) -> None:
    results: dict[tuple[str, str], list[Run]] = {}
    with tempfile.TemporaryDirectory(prefix="tranche-bench-") as folder:
        async with (
            rig.installation(Path(folder) / "data", api_workers=1, kind="http") as (_, url, key),
            aiohttp.ClientSession() as session,
        ):
            await declare(session, url, key)

            def writer(type: str) -> Callable[[int, Any], Awaitable[None]]:
                async def write(_: int, data: bytes) -> None:
                    await rig.post(session, url, key, data, type=type)

                return write

            for number in range(-1, rounds):  # the round before the first warms up
                ids = [rig.record_ids(BATCH) for _ in range(batches)]
                for revision, kind in enumerate(("insert", "update")):
                    bodies = [rig.body(rig.items(part, revision)) for part in ids]
                    for type in ("contacts", "people") if number % 2 else ("people", "contacts"):
                        run = await timed(1, bodies, writer(type))
                        if number >= 0:
                            results.setdefault((kind, type), []).append(run)
    print(f"\n{BATCH}-item batches, {batches} a measurement, median of {rounds} rounds, one client\n")
    print("| write  | contacts, items/s | declared, items/s | ratio | API, µs an item | declared |")
    print("|--------|------------------:|------------------:|------:|----------------:|---------:|")
    for kind in ("insert", "update"):
        own, declared = results[kind, "contacts"], results[kind, "people"]
        ratio = statistics.median(d.rate / o.rate for d, o in zip(declared, own, strict=True))
        rates = [statistics.median(run.rate for run in runs) for runs in (own, declared)]
        spent = [statistics.median(run.spent.api for run in runs) for runs in (own, declared)]
        print(f"| {kind} | {rates[0]:17,.0f} | {rates[1]:17,.0f} | {ratio:5.2f} | {spent[0]:15.1f} | {spent[1]:8.1f} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batches", type=int, default=24)
    arguments = parser.parse_args()

    uvloop.run(main(arguments.rounds, arguments.batches))
