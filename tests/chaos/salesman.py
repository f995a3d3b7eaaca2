"""People who work at the CRMs meanwhile: records that were there before an import, and what is typed into them later.

They type into fields that no import of a round ever names, and before it into some that it may name.
"""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import suppress
from typing import Any, Final

import aiohttp

from tests.chaos.actions import SHARED, own
from tests.chaos.plan import LENGTH, Plan
from tests.chaos.stage import CRMS, Stage, Tenant

KEYS: Final = {"hubspot": "tranche_id", "salesforce": "Tranche_Id__c", "http": "id"}
_NAMES: Final = {
    "hubspot": {"last_name": "lastname", "phone": "phone", "first_name": "firstname", "region": "region"},
    "salesforce": {"last_name": "LastName", "phone": "Phone", "first_name": "FirstName", "region": "Region__c"},
    "http": {"last_name": "last_name", "phone": "phone", "first_name": "first_name"},
}


def _people(plan: Plan) -> list[str]:
    """Contacts that the round may import: everybody's, and the first of those that are undone."""
    undone = [own(a, n) for a in plan.actions if a.kind in ("undo", "push") for n in range(6)]
    return [f"s{n:02}" for n in range(SHARED)] + undone


def _record(kind: str, text: str, *names: str) -> dict[str, Any]:
    found: dict[str, Any] = {
        _NAMES[kind][name]: f"{text} {name}" for name in ("last_name", *names) if name in _NAMES[kind]
    }
    if kind == "http":
        return found | {"attributes": {"region": f"{text} region"}}
    return found | {_NAMES[kind]["region"]: f"{text} region"}


async def make_records(stage: Stage, tenant: Tenant, plan: Plan) -> None:
    """Some of what the round imports is there already, with values of its own."""
    chance = random.Random(f"tranche chaos {plan.seed}: before")
    for crm in CRMS:
        for key in _people(plan):
            if chance.random() < 0.3:
                await _type(stage, tenant, crm, key, _record(stage.kinds[crm], "before", "phone", "first_name"))


async def work(stage: Stage, tenant: Tenant, plan: Plan, began: float) -> None:
    """Type now and then, as long as things break."""
    chance = random.Random(f"tranche chaos {plan.seed}: typing")
    people = _people(plan)
    for number in range(40):
        await asyncio.sleep(max(0.0, began + number * LENGTH / 40 - time.monotonic()))
        crm, key = chance.choice(CRMS), chance.choice(people)
        await _type(stage, tenant, crm, key, _record(stage.kinds[crm], f"typed {number}"))


async def _type(stage: Stage, tenant: Tenant, crm: str, key: str, properties: dict[str, Any]) -> None:
    """Where the CRM is down nobody types."""
    body = {"portal": tenant.name, "key_property": KEYS[stage.kinds[crm]], "key": key, "properties": properties}
    with suppress(aiohttp.ClientError, OSError, TimeoutError):
        async with stage.session.post(f"{stage.sandbox(crm)}/__sandbox__/contacts", json=body) as answer:
            assert answer.status == 200, await answer.text()
