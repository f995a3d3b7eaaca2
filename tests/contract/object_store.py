"""Moto's S3, which others wrote and which verifies signatures and rights, behind the front of our stand-ins: that loses
what a network loses, answers with the errors of S3, and books what each file brings of its records."""

from __future__ import annotations

import functools
import gzip
import http.client
import json
import logging
import uuid
from collections.abc import AsyncIterator, Set
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import quote, urlencode

import aiohttp
import boto3
import msgspec
import pytest
from botocore.client import BaseClient
from moto.server import ThreadedMotoServer

from app.resources.declaration import Resource
from app.sandbox import open_sandbox, server
from app.sandbox.faults import RateLimit, Status, Unauthorized
from app.sandbox.front import DroppedError
from app.sandbox.ledger import Effect
from app.sandbox.vendor import Answer, Refusal, Route, Vendor, Visit
from jobs.crm.object.adapter import ObjectStore
from jobs.crm.port import Difference, Headers, Health, ReadBack, Seen, SentRecord

POLICY: Final = """
{"Version": "2012-10-17", "Statement": [
  {"Effect": "Allow", "Action": ["s3:PutObject", "s3:DeleteObject"], "Resource": "arn:aws:s3:::*/*"},
  {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": "arn:aws:s3:::*"}
]}
"""
_NETWORK: Final = frozenset({"down", "drop_before", "accept_then_drop", "slow", "latency", "garbage", "refuse"})
_ANSWERS: Final = frozenset({"status", "unauthorized", "rate_limit"})
_LINE: Final = ("id", "version", "type", "deleted")


class Account(msgspec.Struct, frozen=True):
    """Of a running Moto."""

    host: str
    port: int
    admin: dict[str, str]

    def client(self, service: str, **keys: str) -> BaseClient:
        keys = keys or self.admin
        return boto3.client(
            service,
            endpoint_url=f"http://{self.host}:{self.port}",
            region_name="us-east-1",
            aws_access_key_id=keys["AccessKeyId"],
            aws_secret_access_key=keys["SecretAccessKey"],
        )

    def make_user(self, policy: str) -> dict[str, str]:
        """Its access key and secret."""
        iam, name = self.client("iam"), uuid.uuid4().hex
        iam.create_user(UserName=name)
        found: dict[str, str] = iam.create_access_key(UserName=name)["AccessKey"]
        self.allow(found, policy)
        return found

    def allow(self, user: dict[str, str], policy: str) -> None:
        self.client("iam").put_user_policy(UserName=user["UserName"], PolicyName="rights", PolicyDocument=policy)


@functools.cache
def account() -> Account:
    """One for all tests of this process; from here on every call needs a signature and rights."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    open_door = Account(host, port, {"AccessKeyId": "nobody", "SecretAccessKey": "nobody"})
    statement = {"Effect": "Allow", "Action": "*", "Resource": "*"}
    admin = open_door.make_user(json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
    _ask(host, port, "POST", "/moto-api/reset-auth", {}, b"0")
    return Account(host, port, admin)


def _ask(host: str, port: int, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
    connection = http.client.HTTPConnection(host, port, timeout=30)
    try:
        connection.request(method, path, body=body or None, headers=headers)
        answer = connection.getresponse()
        content = answer.read()
        kept = {name: value for name, value in answer.getheaders() if name.lower() in ("etag", "x-amz-bucket-region")}
        return Answer(status=answer.status, body=content, headers=kept, content_type="application/xml")
    finally:
        connection.close()


class Moto(Vendor):
    """Hands calls on as they come, and folds the files that are stored."""

    def __init__(self, of: Account) -> None:
        self._account = of
        self.rows: dict[tuple[str, str], dict[str, Any]] = {}
        """The current line of each record, by type and key."""
        self._lose: list[str] = []
        key = "/{bucket}/{key:.+}"
        self.routes = [
            Route("PUT", key, "write", self.put),
            Route("DELETE", key, "write", self.hand_on),
            Route("GET", "/{bucket}", "read", self.hand_on),
        ]

    def lose(self, fault: str, after: int) -> None:
        """What happens to the call that comes after so many that are well: it is not done, or its answer is lost."""
        self._lose = [*[""] * after, fault]

    def own_fields(self, of: str) -> Set[str]:
        return frozenset()

    def make_id(self, count: int, of: str) -> str:
        return str(count)

    def authenticate(self, headers: Any) -> None:
        """Moto does."""

    def not_found(self, path: str) -> Answer:
        return _error(404, "NoSuchKey")

    def refusal(self, fault: Refusal) -> Answer:
        match fault:
            case RateLimit():
                return _error(503, "SlowDown")
            case Unauthorized():
                return _error(403, "InvalidAccessKeyId")
            case Status(code=code):
                return _error(code, "InternalError" if code == 500 else f"Code{code}")
        raise AssertionError(fault)

    def hand_on(self, visit: Visit) -> Answer:
        visit.call.n = 1
        query = f"?{urlencode(visit.query, quote_via=quote)}" if visit.query else ""
        path = quote(visit.call.path, safe="/-_.~")
        headers = dict(visit.headers)
        return _ask(self._account.host, self._account.port, visit.call.method, path + query, headers, visit.body)

    def put(self, visit: Visit) -> Answer:
        fault = self._lose.pop(0) if self._lose else ""
        if fault == "drop_before":
            raise DroppedError(reset=False)
        if fault:
            visit.faults.set(fault, {"times": 1})
        answer = self.hand_on(visit)
        if answer.status == 200 and (lines := read_lines(visit.call.path, visit.body)) is not None:
            visit.call.n = len(lines)
            visit.effects += [done for line in lines if (done := self._fold(line, visit)) is not None]
        return answer

    def _fold(self, line: dict[str, Any], visit: Visit) -> Effect | None:
        """What it did to its record; `None`: it takes nothing away."""
        of, key = line["type"], line["id"]
        before = self.rows.get((of, key))
        if before is None or line["version"] >= before["version"]:
            self.rows[of, key] = line
        if line["deleted"] and (before is None or before["deleted"]):
            return None
        return Effect(
            at=visit.at,
            call=visit.call.call,
            request_id=visit.call.request_id,
            portal=visit.portal,
            object=of,
            key_property="id",
            key=key,
            id=key,
            properties=_filled(line) | {"attributes": _filled(line.get("attributes", {}))},
            changed=line != before,
            created=not line["deleted"] and (before is None or before["deleted"]),
            deleted=line["deleted"],
        )


def read_lines(key: str, body: bytes) -> list[dict[str, Any]] | None:
    """The records of a file; `None`: it is none of records."""
    if not key.endswith((".ndjson", ".ndjson.gz")):
        return None
    text = gzip.decompress(body) if key.endswith(".gz") else body
    return [msgspec.json.decode(line) for line in text.splitlines()]


def _error(status: int, code: str) -> Answer:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>It is {code}.</Message></Error>".encode()
    return Answer(status=status, body=body, content_type="application/xml")


def _filled(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


class FoldedStore(ObjectStore):
    """The adapter, whose records a test can look at: it finds them in the files."""

    def __init__(self, moto: Moto, *, resource: Resource, **arguments: Any) -> None:
        super().__init__(resource=resource, **arguments)
        self._moto = moto
        self._of = resource.name

    async def read_back(self, records: list[SentRecord], headers: Headers, *, by_fields: bool = False) -> ReadBack:
        seen, ids, differences = {}, {}, {}
        for record in records:
            row = self._moto.rows.get((self._of, record.record_id))
            if row is None or row["deleted"]:
                seen[record.record_id] = Seen.ABSENT
                continue
            ids[record.record_id] = record.record_id
            found = [] if record.deleted else self._compare(self._files._line(record), row)
            seen[record.record_id] = Seen.DIFFERS if found or record.deleted else Seen.MATCHES
            differences[record.record_id] = found
        named = {key: found for key, found in differences.items() if found}
        return ReadBack(seen=seen, remote_ids=ids, differences=named, health=Health.WELL)

    def _compare(self, line: dict[str, Any], row: dict[str, Any]) -> list[Difference]:
        ours = {name: value for name, value in line.items() if name not in (*_LINE, "attributes")}
        ours |= {f"attributes.{name}": value for name, value in line.get("attributes", {}).items()}
        theirs = row | {f"attributes.{name}": value for name, value in row.get("attributes", {}).items()}
        return [Difference(n, v, theirs.get(n)) for n, v in ours.items() if v != theirs.get(n)]


class ObjectCase:
    """What `tests.contract.conftest.Sandbox` is for a stand-in of ours."""

    kind = "object"
    locks_calls = False

    def __init__(self, url: str, session: aiohttp.ClientSession, moto: Moto, bucket: str, keys: dict[str, str]) -> None:
        self.url = url
        self._session = session
        self.moto = moto
        self.bucket = bucket
        self.access_key, self.secret = keys["AccessKeyId"], keys["SecretAccessKey"]

    async def get(self, path: str) -> dict[str, Any]:
        name, _, of = path.partition("?object=")
        if name == "contacts":
            rows = [row for (kind, _), row in self.moto.rows.items() if kind == (of or "contacts")]
            held = [{"key": r["id"], "id": r["id"], "properties": _filled(r)} for r in rows if not r["deleted"]]
            return {"contacts": held, "total": len(held)}
        return await self._control("GET", path)

    async def effects(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = (await self.get("ledger"))["effects"]
        return rows

    async def calls(self, *, manifests: bool = False) -> list[dict[str, Any]]:
        """Those about files; each has one about its manifest after it."""
        rows: list[dict[str, Any]] = (await self.get("calls"))["calls"]
        return [row for row in rows if manifests or "/_manifests/" not in row["path"]]

    async def faults(self, **faults: dict[str, Any]) -> None:
        """Exactly these from now on; those that a store of files cannot have skip the test."""
        for kind in faults.keys() - _NETWORK - _ANSWERS:
            pytest.skip(f"a store of files has no answer like {kind}")
        await self._control("PUT", "faults", faults)

    async def edit(self, key_property: str, key: str, properties: dict[str, Any]) -> None:
        pytest.skip("nobody types into files")

    async def remove(self, record_id: str) -> None:
        pytest.skip("nobody takes a record out of a file")

    def stored(self) -> dict[str, bytes]:
        """Every object in the bucket."""
        client = account().client("s3")
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket)
        keys = [found["Key"] for page in pages for found in page.get("Contents", [])]
        return {key: client.get_object(Bucket=self.bucket, Key=key)["Body"].read() for key in keys}

    async def _control(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        async with self._session.request(method, f"{self.url}/__sandbox__/{path}", json=body) as response:
            answer: dict[str, Any] = await response.json()
            assert response.status == 200, answer
            return answer


@asynccontextmanager
async def open_object_store(session: aiohttp.ClientSession, policy: str = POLICY) -> AsyncIterator[ObjectCase]:
    of = account()
    bucket = f"tranche-{uuid.uuid4().hex}"
    of.client("s3").create_bucket(Bucket=bucket)
    moto = Moto(of)
    server.KINDS["object"] = lambda: moto
    try:
        async with open_sandbox("object") as url:
            yield ObjectCase(url, session, moto, bucket, of.make_user(policy))
    finally:
        del server.KINDS["object"]


__all__ = ["POLICY", "FoldedStore", "ObjectCase", "account", "open_object_store", "read_lines"]
