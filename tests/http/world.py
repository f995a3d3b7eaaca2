"""A tenant that has one of everything, and requests that name these things, made from the list of operations."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeAlias

import asyncpg
import msgspec
from uuid_utils.compat import uuid7

from app.destinations.testing import service as testing
from app.destinations.testing.service import DestinationTestRequest
from app.http.operation import Operation, Path
from tests.http.conftest import Answer, Api
from tests.http.dead_letters.test_dead_letters import bury

Db: TypeAlias = "asyncpg.Connection[Any]"
Things: TypeAlias = Mapping[str, str]
"""What an operation may name, by kind."""

ABSENT: Final[Things] = {
    "record": "nobody",
    "type": "nothings",
    "job": "0190d3a8-0000-7000-8000-000000000000",
    "idempotency_key": "never-used",
    "dead_letter": "987654321",
    "destination": "nowhere",
    "test": "0190d3a8-0000-7000-8000-000000000001",
    "endpoint": "987654322",
    "message": "987654323",
    "key": "00000000babe",
    "saga": "0190d3a8-0000-7000-8000-000000000002",
    "tenant": "no-one",
    "stream_token": "no.token",
}
IN_PATH: Final = {
    "type": "type",
    "record_id": "record",
    "job_id": "job",
    "key": "idempotency_key",
    "dead_letter_id": "dead_letter",
    "test_id": "test",
    "endpoint_id": "endpoint",
    "message_id": "message",
    "key_id": "key",
    "saga_id": "saga",
}
NAMES: Final = {"destinations": "destination", "resource-types": "type", "tenants": "tenant"}
"""What `{name}` names, by the collection that it stands in."""
IN_QUERY: Final = {
    "job_id": "job",
    "destination": "destination",
    "record_id": "record",
    "ids": "record",
    "type": "type",
    "token": "stream_token",
}
NO_THING: Final = frozenset(
    "limit state kind status resolution error_code created_before updated_since sent email domain subject cursor "
    "atomic dry_run on_duplicate consistency map ignore decimal date_format sheet".split()
)
"""Queries that name nothing; `subject` and `cursor` are tried by themselves."""
BODIES: Final[dict[str, Callable[[Things], Any]]] = {
    "importRecords": lambda of: {"items": [{"id": of["record"], "email": "new@example.com"}]},
    "eraseRecords": lambda of: {"ids": [of["record"]], "reason": "tried"},
    "declareResourceType": lambda of: {"schema": {"properties": {"title": {"type": "string"}}}},
    "retryJob": lambda of: {"destinations": [of["destination"]]},
    "replayDeadLetters": lambda of: {"ids": [int(of["dead_letter"])]},
    "dropDeadLetters": lambda of: {"filter": {"job_id": of["job"]}, "reason": "tried"},
    "settleDeadLetters": lambda of: {"ids": [int(of["dead_letter"])], "reason": "tried"},
    "dropSaga": lambda of: {"reason": "tried"},
    "addDestination": lambda of: {
        "name": of["destination"],
        "kind": "hubspot",
        "base_url": CRM,
        "token": "token-of-one",
    },
    "changeDestination": lambda of: {"types": [of["type"]]},
    "setCircuit": lambda of: {"state": "open"},
    "syncDestination": lambda of: {"mode": "missing"},
    "testDestination": lambda of: {"canary": False},
    "addWebhookEndpoint": lambda of: {"url": "https://hooks.example.com/new"},
    "changeWebhookEndpoint": lambda of: {"state": "disabled"},
    "rotateWebhookSecret": lambda of: {},
    "replayWebhookMessages": lambda of: {"state": "dead"},
    "createKey": lambda of: {"scopes": ["read"]},
    "changeKey": lambda of: {"name": "renamed"},
    "rotateKey": lambda of: {},
    "createTenant": lambda of: {"name": of["tenant"]},
    "changeTenant": lambda of: {"weight": 2.0},
    "createTenantKey": lambda of: {"scopes": ["read"]},
}
CRM: Final = "https://crm.example.com"


class World:
    """A tenant that has one of everything; all that it says contains its word."""

    def __init__(self, api: Api, word: str) -> None:
        self.api = api
        self.word = word
        self.things: dict[str, str] = {}
        self.headers: dict[str, str] = {}
        """That only somebody who read the tenant's job can have."""

    async def build(self, db: Db, tenant: str) -> World:
        word, api, found = self.word, self.api, self.things
        found.update(type=f"{word}_things", record=f"{word}-c1", destination=f"{word}-crm", tenant=tenant)
        found["idempotency_key"] = f"{word}-key"
        await self.call("PUT", f"/v1/resource-types/{found['type']}", BODIES["declareResourceType"](found))
        await self.call("POST", "/v1/destinations", BODIES["addDestination"](found))
        people = [{"id": found["record"], "email": f"{word}@example.com"}, {"id": f"{word}-c2", "email": word}]
        found["job"] = (await self.call("POST", "/v1/contacts:bulk", {"items": people}, key=word))["job_id"]
        await bury(db, found["job"])
        letters = (await api.get("/v1/dead-letters")).json()["dead_letters"]
        found["dead_letter"] = str(letters[0]["id"])
        endpoint = await self.call("POST", "/v1/webhook-endpoints", {"url": f"https://{word}.example.com/"}, key=word)
        found["endpoint"] = str(endpoint["endpoint_id"])
        message = await api.request("POST", f"/v1/webhook-endpoints/{found['endpoint']}/test")
        found["message"] = message.headers["Location"].rpartition("/")[2]
        made = await self.call("POST", "/v1/keys", {"scopes": ["read"], "name": word}, key=word)
        found["key"] = made["key_id"]
        tenant_id = await db.fetchval("SELECT tenant_id FROM tenants WHERE name = $1", tenant)
        test = await testing.ask(
            db, tenant_id, found["destination"], DestinationTestRequest(), request_id=word, actor="a", new_id=uuid7
        )
        found["test"] = str(test)
        found["saga"] = await self.fail_saga(db)
        token = await self.call("POST", f"/v1/jobs/{found['job']}/stream-token", None)
        found["stream_token"] = token["token"]
        tag = (await api.get(f"/v1/jobs/{found['job']}")).headers["ETag"]
        self.headers = {"If-None-Match": tag, "Last-Event-ID": "1", "Idempotency-Key": f"{word}-key"}
        return self

    async def fail_saga(self, db: Db) -> str:
        """The undo of the job, as if it could go neither forward nor back."""
        saga: uuid.UUID = await db.fetchval(
            """INSERT INTO sagas (tenant_id, saga_id, workflow, subject, state, attempts, error, actor, finished_at)
            SELECT tenant_id, job_id, 'undo', job_id, 'failed', 5, $2, 'somebody', now() FROM jobs WHERE job_id = $1
            ON CONFLICT (tenant_id, saga_id) DO UPDATE SET state = 'failed', dropped_at = NULL RETURNING saga_id""",
            self.things["job"],
            self.word,
        )
        return str(saga)

    async def call(self, method: str, path: str, body: Any, *, key: str = "") -> Any:
        headers = {"Content-Type": "application/json"} | ({"Idempotency-Key": f"{key}-key"} if key else {})
        data = None if body is None else msgspec.json.encode(body)
        answer = await self.api.request(method, path, headers=headers, data=data)
        assert answer.status < 300, answer.body
        return answer.json()


class Recorder(dict[str, str]):
    """Things that notes which of them are looked at."""

    def __init__(self, things: Things) -> None:
        super().__init__(things)
        self.seen: set[str] = set()

    def __getitem__(self, kind: str) -> str:
        self.seen.add(kind)
        return super().__getitem__(kind)


class Slots:
    """The places of an operation that name things: its path, its query and its body."""

    def __init__(self, operation: Operation) -> None:
        self.operation = operation
        self.path = {
            name: IN_PATH[name] if name != "name" else NAMES[operation.path.split("/")[2]]
            for name, mark in operation.parameters
            if isinstance(mark, Path)
        }
        fields = [] if operation.query is None else [one.encode_name for one in msgspec.structs.fields(operation.query)]
        unknown = set(fields) - set(IN_QUERY) - NO_THING
        assert not unknown, f"{operation.id}: say what the query {unknown} names, in IN_QUERY or NO_THING"
        self.query = [name for name in fields if name in IN_QUERY]
        used = Recorder(ABSENT)
        self.make_body = BODIES.get(operation.id)
        assert self.make_body or not operation.body, f"{operation.id}: BODIES needs a body of it"
        if self.make_body is not None:
            self.make_body(used)
        self.body = frozenset(used.seen)

    def cases(self) -> Iterator[frozenset[str]]:
        """Which slots name what is not one's own: each of them alone, and those of the path in every combination."""
        for count in range(1, len(self.path) + 1):
            yield from (frozenset(names) for names in itertools.combinations(self.path, count))
        yield from (frozenset({f"?{name}"}) for name in self.query)
        if self.body:
            yield frozenset({"body"})

    async def send(
        self, api: Api, own: Things, other: Things, slots: frozenset[str], headers: Mapping[str, str]
    ) -> Answer:
        of = {name: (other if name in slots else own)[kind] for name, kind in self.path.items()}
        path = self.operation.path.format_map(of)
        asked = [f"{name[1:]}={other[IN_QUERY[name[1:]]]}" for name in slots if name.startswith("?")]
        if asked:
            path += "?" + "&".join(asked)
        sent = {"Content-Type": "application/json", "X-Request-ID": "matrix"} | dict(headers)
        if self.operation.id == "importRecords":
            sent.setdefault("Idempotency-Key", str(uuid7()))
        body = (
            None if self.make_body is None else msgspec.json.encode(self.make_body(other if "body" in slots else own))
        )
        return await api.request(self.operation.method, path, headers=sent, data=body)
