"""Every operation, by every principal, with own, foreign and absent things, made from the list of operations.

Whoever has no business with a thing learns no more about it than about one that does not exist, and changes nothing. An
operation whose parameters, query or body name a thing of a new kind fails here until `World` has one.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, TypeAlias

import asyncpg
import msgspec

from app.api.routes import OPERATIONS
from app.auth import service, tokens
from app.auth.authorization import FOLLOWING, OPERATOR, Scopes
from app.http.operation import Operation
from app.settings import Settings
from tests.http.conftest import Answer
from tests.http.in_process import in_process
from tests.http.world import ABSENT, Slots, Things, World

Db: TypeAlias = "asyncpg.Connection[Any]"
OPERATOR_TOKEN: Final = "the-operators-own-token"
METRICS_TOKEN: Final = "a-token-for-metrics-alone"
KEY: Final = "kestrel-key"
SLOTS: Final = [Slots(one) for one in OPERATIONS]
SLOTS.sort(
    key=lambda one: (one.operation.method != "GET", "{" not in one.operation.path, one.operation.method == "PUT")
)
"""What makes something new comes last: afterwards a name is no longer absent."""
_VOLATILE: Final = re.compile(
    rb"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f-]{21}|\d{4}-\d\d-\d\dT[\d:.]+Z|trn_\w+|whsec_[\w+/=]+|\b[0-9a-f]{12}\b|\d+"
)


def seen(answer: Answer, things: Things) -> tuple[int, tuple[str, ...], bytes]:
    """What a client can tell from an answer, without the names that it gave itself and what differs each time."""
    body = answer.body
    for name in sorted((*things.values(), *ABSENT.values()), key=len, reverse=True):
        body = body if name.isdecimal() else body.replace(name.encode(), b"#")
    names = tuple(sorted({name.lower() for name in answer.headers} - {"date"}))
    return answer.status, names, _VOLATILE.sub(b"#", body)


def public(operation: Operation) -> bool:
    return operation.access.security is not None and ({} in operation.access.security or not operation.access.security)


def scopes_of(operation: Operation) -> frozenset[str]:
    access = operation.access
    return access.scopes if isinstance(access, Scopes) else frozenset() if access is OPERATOR else FOLLOWING.scopes


@asynccontextmanager
async def build_worlds(settings: Settings, api_key: str, db: Db) -> AsyncIterator[tuple[World, World]]:
    """Tenant `acme`, whose things are the foreign ones, and `beta`, which tries to get at them."""
    changes = {
        "operator_token": OPERATOR_TOKEN,
        "metrics_token": METRICS_TOKEN,
        "limit_address": "0",
        "limit_key_requests": "0",
    }
    async with in_process(msgspec.structs.replace(settings, **changes), api_key) as api:
        beta = await service.create_key(db, "beta", list(service.SCOPES))
        yield (await World(api, "kestrel").build(db, "acme"), await World(api.as_key(beta), "plain").build(db, "beta"))


async def rows_of(db: Db, tenant: str) -> dict[str, str]:
    """A digest of each table's rows of a tenant; when a key was last used is noted a minute later."""
    tables = await db.fetch(
        "SELECT c.table_name FROM information_schema.columns c JOIN information_schema.tables t USING (table_name) "
        "WHERE c.column_name = 'tenant_id' AND c.table_schema = 'public' AND t.table_type = 'BASE TABLE'"
    )
    tenant_id = await db.fetchval("SELECT tenant_id FROM tenants WHERE name = $1", tenant)
    return {
        name: await db.fetchval(
            f"SELECT md5(coalesce(string_agg(t::text, '|' ORDER BY t::text), '')) FROM "
            f"(SELECT to_jsonb(x) - 'last_used_at' AS t FROM {name} x WHERE tenant_id = $1) t",
            tenant_id,
        )
        for (name,) in tables
    }


async def bad_keys(db: Db, good: str) -> dict[str, str]:
    """By what is wrong with them; all but the last would be of the tenant of the good key."""
    parsed = tokens.parse(good)
    assert parsed is not None
    revoked, expired, rotated = [await service.create_key(db, "acme", list(service.SCOPES)) for _ in range(3)]
    await service.revoke_key(db, revoked)
    await db.execute("UPDATE api_keys SET expires_at = now() - interval '1 s' WHERE key_id = $1", _id_of(expired))
    await service.rotate_key(db, parsed.tenant_id, _id_of(rotated), keep=0.0, actor="test")
    disabled = await service.create_key(db, "gamma", list(service.SCOPES))
    await service.set_tenant_disabled(db, "gamma", True)
    forged, _ = tokens.make(parsed.tenant_id, bytes.fromhex(parsed.key_id), bytes(20))
    nobodys, _ = tokens.make(tokens.MAX_TENANT, bytes(6), bytes(20))
    return {
        "garbage": "trn_x",
        "misspelled": good[:-1] + ("0" if good[-1] != "0" else "1"),
        "revoked": revoked,
        "expired": expired,
        "rotated away": rotated,
        "forged, with the right checksum": forged,
        "of a tenant that does not exist": nobodys,
        "of a disabled tenant": disabled,
    }


def _id_of(key: str) -> str:
    parsed = tokens.parse(key)
    assert parsed is not None
    return parsed.key_id


async def test_without_a_good_key_everything_looks_alike(settings: Settings, api_key: str, db: Db) -> None:
    async with build_worlds(settings, api_key, db) as (acme, _):
        good = str(acme.api.key)
        keys: dict[str, str | None] = {"none": None, **await bad_keys(db, good)}
        keys |= {"operator": OPERATOR_TOKEN, "metrics": METRICS_TOKEN, "of a tenant, for an operator": good}
        before = await rows_of(db, "acme")
        count = 0
        for what, key in keys.items():
            for slots in SLOTS:
                operation = slots.operation
                of_operator = operation.access is OPERATOR
                if (key == good) is not of_operator or (key == OPERATOR_TOKEN and of_operator):
                    continue
                if operation.path == "/metrics" and key in (OPERATOR_TOKEN, METRICS_TOKEN):
                    continue
                every = frozenset(slots.path)
                bodies = frozenset({"body"} if slots.body else ())
                theirs, nobodys = await asyncio.gather(
                    slots.send(acme.api.as_key(key), acme.things, acme.things, every | bodies, acme.headers),
                    slots.send(acme.api.as_key(key), ABSENT, ABSENT, every | bodies, {"Idempotency-Key": "other"}),
                )
                count += 2
                case = (what, operation.method, operation.path)
                assert seen(theirs, acme.things) == seen(nobodys, acme.things), case
                assert b"kestrel" not in theirs.body, case
                if not public(operation):
                    refused = 403 if what == "of a disabled tenant" and not of_operator else 401
                    assert theirs.status == refused, case
        assert await rows_of(db, "acme") == before
        print(f"{count} requests of {len(keys)} principals to {len(SLOTS)} operations")


async def test_another_tenants_things_look_like_absent_ones(settings: Settings, api_key: str, db: Db) -> None:
    async with build_worlds(settings, api_key, db) as (acme, beta):
        own = beta.things | {"type": "contacts"}
        before = await rows_of(db, "acme")
        keys = {scope: await service.create_key(db, "beta", [scope]) for scope in service.SCOPES}
        keys["all"] = str(beta.api.key)
        count = 0
        for slots in SLOTS:
            operation = slots.operation
            for what, key in keys.items():
                api = beta.api.as_key(key)
                for case in (*slots.cases(), frozenset[str]()):
                    foreign = await slots.send(api, own, acme.things, case, {})
                    absent = await slots.send(api, own, ABSENT, case, {}) if case else foreign
                    armed = (
                        await slots.send(api, own, acme.things, case, dict(list(acme.headers.items())[:2]))
                        if case and operation.method == "GET"
                        else foreign
                    )
                    count += len({id(one) for one in (foreign, absent, armed)})
                    where = (what, operation.method, operation.path, sorted(case), foreign.status, foreign.body[:300])
                    expected = seen(absent, acme.things)
                    assert seen(foreign, acme.things) == expected, (where, absent.status, absent.body[:300])
                    assert seen(armed, acme.things) == expected, (where, armed.status, armed.body[:300])
                    told = foreign.body
                    for name in acme.things.values():
                        told = told.replace(name.encode(), b"") if case else told
                    assert b"kestrel" not in told, where
                    assert acme.things["job"].encode() not in told, where
                    if operation.access is OPERATOR:
                        assert foreign.status == 401, where
                    elif not public(operation) and what != "all" and what not in scopes_of(operation):
                        assert foreign.status == 403, where
                    elif set(case) & set(slots.path) and operation.method != "PUT":
                        assert foreign.status == (401 if "?token" in case else 404), where
        assert await rows_of(db, "acme") == before
        print(f"{count} requests of {len(keys)} keys to {len(SLOTS)} operations")


async def test_the_same_requests_work_for_whom_they_are_meant(settings: Settings, api_key: str, db: Db) -> None:
    """Otherwise the others would have been refused for another reason."""
    async with build_worlds(settings, api_key, db) as (acme, _):
        operator = acme.api.as_key(OPERATOR_TOKEN)
        own = acme.things | {"type": "contacts"}
        refused = {}
        order = sorted(
            SLOTS,
            key=lambda one: (
                ("PUT", "PATCH", "DELETE").index(m)
                if (m := one.operation.method) in ("PUT", "PATCH", "DELETE")
                else -1,
                SLOTS.index(one),
            ),
        )
        for slots in order:
            await acme.fail_saga(db)  # which each decision about it ends
            api = operator if slots.operation.access is OPERATOR else acme.api
            things = own | {"type": acme.things["type"]} if slots.operation.id == "declareResourceType" else own
            # What is made has a name that is not taken.
            made = frozenset(() if slots.path else {"body"})
            letters = {"dead_letter": own["dead_letter"], "job": own["job"]}
            answer = await slots.send(api, things, ABSENT | letters, made, {})
            if answer.status >= 300:
                refused[slots.operation.id] = (answer.status, answer.json().get("code"))
        # The import is done, and no worker runs beside the service here.
        assert refused == {"cancelJob": (409, "JOB_NOT_CANCELABLE"), "testDestination": (503, "NO_WORKER")}


async def test_what_another_tenant_was_given_opens_nothing(settings: Settings, api_key: str, db: Db) -> None:
    """Cursors, idempotency keys, stream tokens, subjects of the audit log."""
    async with build_worlds(settings, api_key, db) as (acme, beta):
        await acme.call(
            "POST", "/v1/contacts:bulk", {"items": [{"id": "kestrel-c9", "email": "c9@example.com"}]}, key="2"
        )
        before = await rows_of(db, "acme")
        count = 0
        for slots in SLOTS:
            operation = slots.operation
            if operation.query is None or "cursor" not in operation.query.__struct_fields__:
                continue
            things = acme.things | {"type": "contacts"}
            path = operation.path.format_map({name: things[kind] for name, kind in slots.path.items()})
            cursor = (await acme.api.get(f"{path}?limit=1")).json()["next_cursor"]
            own = beta.things | {"type": "contacts"}
            path = operation.path.format_map({name: own[kind] for name, kind in slots.path.items()})
            answer = await beta.api.get(f"{path}?cursor={cursor}")
            count += 1
            assert answer.status in (200, 400), (path, answer.body)
            assert b"kestrel" not in answer.body, path
        for path, body in (
            ("/v1/contacts:bulk", {"items": [{"id": "plain-c1", "email": "plain@example.com"}]}),
            ("/v1/webhook-endpoints", {"url": "https://kestrel.example.com/"}),
            ("/v1/keys", {"scopes": ["read"], "name": "kestrel"}),
        ):
            headers = {"Content-Type": "application/json", "Idempotency-Key": KEY}
            answer = await beta.api.request("POST", path, headers=headers, data=msgspec.json.encode(body))
            count += 1
            assert answer.status in (201, 207), answer.body
            assert "Idempotency-Replayed" not in answer.headers, path
        for job in (acme, beta):
            other = beta if job is acme else acme
            answer = await acme.api.as_key(None).get(
                f"/v1/jobs/{job.things['job']}/events?token={other.things['stream_token']}"
            )
            assert answer.status == 401, answer.body
        listed = await beta.api.get(f"/v1/audit-log?subject=job:{acme.things['job']}")
        assert listed.json()["entries"] == []
        assert await rows_of(db, "acme") == before
        assert count > 8
