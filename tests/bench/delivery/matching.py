"""A first import into an account with a history, and its undo: `python -m tests.bench.delivery.matching`.

Real processes on embedded engines with fsync on: one API process, two workers, a sandbox HubSpot with 10,000 contacts.
Of the 8,000 that are imported it knows 4,000 by their e-mail address: there must be 14,000 then, and after the undo the
10,000 as they were, field by field.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop

from tests.bench.delivery.site import Site, opened
from tests.bench.rig import until_ready


def _person(number: int) -> dict[str, Any]:
    fields = {"first_name": "Ours", "last_name": f"Ours {number}", "phone": "+49 30 123456", "company": "New"}
    return {"id": f"c{number:06}", "email": f"c{number:06}@example.com", "attributes": {"tier": "gold"}} | fields


async def fill(site: Site, count: int, matching: int) -> dict[str, dict[str, Any]]:
    """So many contacts that are there before; those that match are a random part of them as far as anybody can see."""
    for start in range(0, count, 100):
        inputs = [
            {
                "objectWriteTraceId": str(number),
                "properties": {
                    "email": f"c{number:06}@example.com" if number < matching else f"stranger{number}@example.com",
                    "firstname": f"Theirs {number}",
                    "company": "Old",
                    **({"phone": f"+1 {number}", "tier": "silver"} if number % 3 else {}),
                },
            }
            for number in range(start, min(start + 100, count))
        ]
        url = f"{site.sandbox.base_url}/crm/v3/objects/contacts/batch/create"
        async with site.session.post(url, json={"inputs": inputs}, headers={"Authorization": "Bearer t"}) as answer:
            assert answer.status == 201, await answer.text()
    return await site.sandbox.held()


async def finished(site: Site, job_id: str) -> dict[str, Any]:
    job = await site.tranche.finished(job_id, 300)
    assert job["state"] == "completed", job
    return job


async def measure(site: Site, there: int, matching: int, imported: int) -> None:
    before = await fill(site, there, matching)
    calls = len(await site.sandbox.calls())
    await site.start()
    began = time.monotonic()
    headers = {"Idempotency-Key": "matching", "Prefer": "respond-async"}
    body = {"items": [_person(number) for number in range(imported)]}
    answer = await site.tranche.ask("POST", "/v1/contacts:bulk", json=body, headers=headers)
    assert answer.status == 202, answer
    job_id = answer.json()["job_id"]
    await finished(site, job_id)
    import_seconds = time.monotonic() - began
    held = await site.sandbox.held()
    emails = [properties["email"] for properties in held.values()]
    made = await site.sandbox.calls()
    reads = sum(call["on"] == "read" for call in made[calls:])
    ours = sum(properties.get("tier") == "gold" for properties in held.values())
    began = time.monotonic()
    undo = await site.tranche.ask("POST", f"/v1/jobs/{job_id}/undo")
    await finished(site, undo.json()["job_id"])
    undo_seconds = time.monotonic() - began
    after = await site.sandbox.held()
    different = sum(after.get(id_) != properties for id_, properties in before.items())
    print(f"| an account with {there:,} contacts, of which {matching:,} match; {imported:,} imported | |")
    print("|---|---|")
    print(f"| contacts there after the import | {len(held):,} |")
    print(f"| e-mail addresses that two of them have | {len(emails) - len(set(emails)):,} |")
    print(f"| of the imported ones, with the imported values | {ours:,} |")
    print(f"| calls of the import, {reads:,} of them reads | {len(made) - calls:,} |")
    print(f"| seconds of the import, of the undo | {import_seconds:.1f}, {undo_seconds:.1f} |")
    print(f"| contacts there after the undo | {len(after):,} |")
    print(f"| of those that were there before, different in any field | {different:,} |")
    assert len(held) == there + imported - matching
    assert len(set(emails)) == len(emails)
    assert ours == imported
    assert after == before


async def main(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(prefix="tranche-matching-", dir=arguments.folder) as name:
        os.chmod(name, 0o711)  # as root the engines run as somebody else
        async with opened(Path(name)) as site:
            await until_ready(f"{site.sandbox.base_url}/__sandbox__/health")
            await measure(site, arguments.there, arguments.matching, arguments.imported)
            site.tranche.quiet = True


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--there", type=int, default=10_000)
    parser.add_argument("--matching", type=int, default=4_000)
    parser.add_argument("--imported", type=int, default=8_000)
    parser.add_argument("--folder", type=Path, help="for data; in the folder for temporary files by default")
    uvloop.run(main(parser.parse_args()))
