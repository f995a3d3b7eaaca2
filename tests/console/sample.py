"""Something for every view to show: jobs of several kinds, a dead letter, a record with a history."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

from tests.acceptance.harness import Installation, until


class Sample(NamedTuple):
    """What there is."""

    job: str
    """Of twelve contacts: `c0` was invalid, `c2` the destination refused."""
    undo: str
    """Of a job whose one contact was `u0`."""
    dead_letter: str
    endpoint: str = ""
    """Of webhooks, all of which it refuses."""

    @property
    def addresses(self) -> dict[str, str]:
        """Of views whose patterns have parameters."""
        return {
            "/jobs/:id": f"/jobs/{self.job}",
            "/jobs/:id/items": f"/jobs/{self.job}/items",
            "/jobs/:id/rows": f"/jobs/{self.job}/rows",
            "/records/:type/:id": "/records/contacts/c1",
            "/destinations/:name": "/destinations/hubspot",
            "/dead-letters/list": "/dead-letters/list?destination=hubspot",
            "/dead-letters/:id": f"/dead-letters/{self.dead_letter}",
            "/webhooks/:id": f"/webhooks/{self.endpoint}",
        }


async def furnish(tranche: Installation) -> Sample:
    """Start the API and a worker, and let them have all that there is a view for."""
    private = "127.0.0.0/8"
    await asyncio.gather(tranche.start_api(webhook_private=private), tranche.start_worker(webhook_private=private))
    # The stand-in of the CRM knows no such path.
    hook = {"url": f"{tranche.sandbox.base_url}/hook"}
    made = (await tranche.ask("POST", "/v1/webhook-endpoints", json=hook)).json()
    sample = await fill(tranche)

    async def messages() -> Any:
        return (await tranche.get(f"/v1/webhook-endpoints/{made['endpoint_id']}/messages"))["messages"]

    await until(messages)
    return sample._replace(endpoint=made["endpoint_id"])


async def fill(tranche: Installation) -> Sample:
    """Everything has ended when this returns. `c1` has two versions."""
    await tranche.sandbox.misbehave(reject={"keys": ["c2"]})
    people: list[dict[str, Any]] = [
        {"id": f"c{n}", "email": f"c{n}@example.org", "first_name": f"Ada {n}", "attributes": {"plan": "gold"}}
        for n in range(12)
    ]
    people[0]["email"] = "nobody"
    job = (await tranche.push(people)).json()["job_id"]
    await tranche.finished(job)
    await tranche.imported([{"id": "c1", "email": "c1@example.org", "first_name": None, "phone": "+44 20 7946 0000"}])
    undone = await tranche.imported([{"id": "u0", "email": "u0@example.org"}])
    await tranche.finished(undone)
    undo = (await tranche.ask("POST", f"/v1/jobs/{undone}/undo")).json()["job_id"]
    await tranche.finished(undo)

    async def letters() -> Any:
        return (await tranche.get("/v1/dead-letters"))["dead_letters"]

    (letter, *_) = await until(letters)
    return Sample(job, undo, str(letter["id"]))
