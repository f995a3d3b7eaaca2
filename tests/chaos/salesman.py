"""People who work at the CRMs meanwhile: records that were there before an import, and what is typed into them later.

They type into fields that no import of a round ever names, and before it into some that it may name.
"""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import suppress
from typing import Any

import aiohttp

from tests.chaos.actions import SHARED, own
from tests.chaos.plan import LENGTH, Plan
from tests.chaos.resources import KEYS, Type, field_at, object_of
from tests.chaos.stage import CRMS, Stage, Tenant


def _people(plan: Plan) -> list[tuple[Type, str]]:
    """Records that the round may import: everybody's, and the first of those that are undone or deleted."""
    undone = [(a.type, own(a, n)) for a in plan.actions if a.kind in ("undo", "push", "delete") for n in range(6)]
    return [(one, f"s{n:02}") for n in range(SHARED) for one in plan.types] + undone


def _record(kind: str, type: Type, text: str, *names: str) -> dict[str, Any]:
    found: dict[str, Any] = {field_at(kind, type.name, name): f"{text} {name}" for name in (type.unnamed, *names)}
    region = f"{text} region"
    return found | (
        {"attributes": {"region": region}}
        if kind == "http"
        else {field_at(kind, type.name, "attributes.region"): region}
    )


async def make_records(stage: Stage, tenant: Tenant, plan: Plan) -> None:
    """Some of what the round imports is there already, with values of its own."""
    chance = random.Random(f"tranche chaos {plan.seed}: before")
    for crm in CRMS:
        for of, key in _people(plan):
            if chance.random() < 0.3:
                await _type(stage, tenant, crm, of, key, _record(stage.kinds[crm], of, "before", *of.typed))


async def work(stage: Stage, tenant: Tenant, plan: Plan, began: float) -> None:
    """Type now and then, as long as things break."""
    chance = random.Random(f"tranche chaos {plan.seed}: typing")
    people = _people(plan)
    for number in range(40):
        await asyncio.sleep(max(0.0, began + number * LENGTH / 40 - time.monotonic()))
        crm, (of, key) = chance.choice(CRMS), chance.choice(people)
        await _type(stage, tenant, crm, of, key, _record(stage.kinds[crm], of, f"typed {number}"))


async def _type(stage: Stage, tenant: Tenant, crm: str, type: Type, key: str, properties: dict[str, Any]) -> None:
    """Where the CRM is down, or has no place for these records, nobody types."""
    kind = stage.kinds[crm]
    at = object_of(kind, type.name)
    if at is None:
        return
    body = {"portal": tenant.name, "key_property": KEYS[kind], "key": key, "properties": properties}
    with suppress(aiohttp.ClientError, OSError, TimeoutError):
        url = f"{stage.sandbox(crm)}/__sandbox__/contacts"
        async with stage.session.post(url, params={"object": at}, json=body) as answer:
            assert answer.status == 200, await answer.text()
