"""What is particular to files in a bucket: bytes, names, signatures, the errors of S3."""

from __future__ import annotations

import gzip
import hashlib
import json
from typing import Any

import aiohttp
import pytest
from multidict import CIMultiDict

from app.destinations import kinds
from app.destinations.credentials import BasicCredentials, TokenCredentials
from app.destinations.options import OptionsError
from app.vocabulary.states import EffectState, ErrorCode
from jobs.crm.authorization import FixedAuthorizer
from jobs.crm.object import files
from jobs.crm.object.adapter import ObjectStore
from jobs.crm.port import Headers, Health, Reply, Timeouts
from jobs.outbound.ssrf import DestinationSessions
from tests.contract.conftest import Connect, contact, contacts, told
from tests.contract.object_store import ObjectCase, account, read_lines
from tests.contract.scripted import Script
from tests.types import CONTACTS, sent

SECRET = "wJalr/K7MDENG+bPxRfiCY"
OK, RETRY, FAILED = EffectState.OK, EffectState.RETRY, EffectState.FAILED


@pytest.fixture
def kind() -> str:
    return "object"


def connect_to(url: str, session: aiohttp.ClientSession, resource: Any = CONTACTS, **options: Any) -> ObjectStore:
    return ObjectStore(
        session=session,
        resource=resource,
        base_url=url,
        authorizer=FixedAuthorizer(BasicCredentials(username="key-id", password=SECRET)),
        options={"bucket": "exports"} | options,
        timeouts=Timeouts(1.0, 2.0),
    )


def error(code: str, **more: str) -> bytes:
    elements = "".join(f"<{name}>{text}</{name}>" for name, text in ({"Code": code} | more).items())
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{elements}</Error>'.encode()


async def push(script: Script, session: aiohttp.ClientSession, status: int, raw: bytes, **headers: str) -> Reply:
    script.status, script.raw, script.headers = status, raw, headers
    return await connect_to(script.url, session).push(contacts(2), told())


async def test_the_same_records_are_the_same_bytes_under_the_same_names(crm: Any, sandbox: ObjectCase) -> None:
    batch = [contact("c1", attributes={"b": 1, "a": [True, None, 2.5]}), contact("c2", phone=None)]
    for _ in range(2):
        await crm.push(batch, told("r", "event-1"))
    stored = sandbox.stored()
    assert len(stored) == 2
    [(key, lines)] = [(key, found) for key, body in stored.items() if (found := read_lines(key, body)) is not None]
    assert list(lines[0]) == [
        *("id", "version", "type", "deleted", "company", "email", "first_name", "last_name", "phone", "attributes")
    ]
    assert lines[0]["attributes"] == {"a": [True, None, 2.5], "b": 1}
    assert (lines[1]["phone"], "attributes" in lines[1]) == (None, False)
    assert stored[key][4:8] == bytes(4), "the time is part of a gzip file (RFC 1952), and would be another one"
    digest = hashlib.sha256(stored[key]).hexdigest()
    assert key == f"contacts/event-1-{digest[:16]}.ndjson.gz"
    manifest = json.loads(stored[f"contacts/_manifests/event-1-{digest[:16]}.json"])
    assert manifest == {
        "file": key, "bytes": len(stored[key]), "sha256": digest, "event_id": "event-1", "type": "contacts",
        "records": 2, "ids": ["c1", "c2"], "versions": [1, 1],
    }  # fmt: skip


async def test_other_bytes_of_the_same_event_have_another_name(crm: Any, sandbox: ObjectCase) -> None:
    """A clearing that another delivery has brought meanwhile is not sent again; the version is the same."""
    await crm.push([contact("c1", phone=None)], told("r", "event-1"))
    bare = {name: value for name, value in contact("c1").fields.items() if name != "phone"}
    await crm.push([sent("c1", 1, **bare)], told("r", "event-1"))
    assert len(sandbox.stored()) == 4


async def test_options_say_what_files_are_like(connect: Connect, sandbox: ObjectCase) -> None:
    options = {"path": "a/type={type}/v1", "compression": "none", "storage_class": "STANDARD_IA"}
    options |= {"fields": {"phone": "telephone", "company": None, "Plan": "plan"}, "encryption": "AES256"}
    crm = connect(options=options)
    reply = await crm.push([contact("c1", attributes={"Plan": "gold", "Other": 1})], told("r", "event-1"))
    assert reply.outcomes[0].state is OK, reply.detail
    [key] = [key for key in sandbox.stored() if "_manifests" not in key]
    assert key.startswith("a/type=contacts/v1/event-1-")
    assert key.endswith(".ndjson")
    [line] = read_lines(key, sandbox.stored()[key]) or []
    assert (line["telephone"], line["plan"], line["attributes"]) == ("001-808-617-6467x12895", "gold", {"Other": 1})
    assert "company" not in line
    head = account().client("s3").head_object(Bucket=sandbox.bucket, Key=key)
    assert (head["StorageClass"], head["ServerSideEncryption"]) == ("STANDARD_IA", "AES256")


async def test_a_base_url_that_leads_to_the_bucket_needs_no_option(connect: Connect, sandbox: ObjectCase) -> None:
    crm = connect(base_url=f"{sandbox.url}/{sandbox.bucket}/", options={"bucket": None})
    assert [(step.name, step.ok) for step in await crm.check(told())] == [("bucket", True)]
    assert (await crm.push(contacts(1), told())).outcomes[0].state is OK
    assert len(sandbox.stored()) == 2


async def test_a_manifest_comes_after_its_file_and_not_without_it(crm: Any, sandbox: ObjectCase) -> None:
    await sandbox.faults(status={"code": 500, "times": 1})
    assert (await crm.push(contacts(1), told("r", "event-1"))).outcomes[0].state is EffectState.UNKNOWN
    assert sandbox.stored() == {}
    sandbox.moto.lose("drop_before", 1)
    assert (await crm.push(contacts(1), told("r", "event-1"))).outcomes[0].state is EffectState.UNKNOWN
    assert ["/_manifests/" in key for key in sandbox.stored()] == [False]
    assert (await crm.push(contacts(1), told("r", "event-1"))).outcomes[0].state is OK
    assert sorted("/_manifests/" in key for key in sandbox.stored()) == [False, True]


async def test_records_that_are_too_large_for_one_file_become_halves(
    crm: Any, sandbox: ObjectCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MOST_BYTES", 600)
    reply = await crm.push(contacts(4), told())
    assert (reply.rejected_whole, reply.health) == (True, Health.WELL)
    assert {(o.state, o.code) for o in reply.outcomes} == {(RETRY, ErrorCode.DESTINATION_REJECTED)}
    assert sandbox.stored() == {}
    large = [contact("c1", company="x" * 1000)]
    assert (await crm.push(large, told())).outcomes[0].state is OK, "one alone is sent, whatever its size"


async def test_the_secret_is_in_no_call(script: Script, session: aiohttp.ClientSession) -> None:
    await connect_to(script.url, session).push(contacts(1), told())
    [asked] = script.asked
    assert asked.headers["Authorization"].startswith("AWS4-HMAC-SHA256 Credential=key-id/")
    assert SECRET not in str(asked.headers)
    signed = asked.headers["Authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
    assert {name.lower() for name in asked.headers if name.lower().startswith("x-amz-")} < set(signed)
    body = script.contents[0]
    assert asked.headers["X-Amz-Content-Sha256"] == hashlib.sha256(body).hexdigest()
    assert gzip.decompress(body).endswith(b"}\n")


@pytest.mark.parametrize(
    ("status", "raw", "headers", "health", "words"),
    [
        (403, error("InvalidAccessKeyId", Message="No such key"), {}, Health.CONNECTION_FAULT, "InvalidAccessKeyId"),
        (403, error("SignatureDoesNotMatch"), {}, Health.CONNECTION_FAULT, "SignatureDoesNotMatch"),
        (403, error("AccessDenied"), {}, Health.SETUP_FAULT, "s3:PutObject on arn:aws:s3:::exports/contacts/*"),
        (404, error("NoSuchBucket"), {}, Health.SETUP_FAULT, "Make the bucket, or name yours (option bucket)"),
        (
            400,
            error("AuthorizationHeaderMalformed", Message="expecting", Region="eu-central-1"),
            {},
            Health.SETUP_FAULT,
            "set the option region=eu-central-1",
        ),
        (
            301,
            error("PermanentRedirect", Endpoint="exports.s3.eu-west-1.amazonaws.com"),
            {"x-amz-bucket-region": "eu-west-1"},
            Health.SETUP_FAULT,
            "set the option region=eu-west-1",
        ),
        (
            403,
            error("RequestTimeTooSkewed", ServerTime="2026-03-01T00:00:00Z"),
            {},
            Health.CONNECTION_FAULT,
            "the clock of the worker differs from that of the store, which says 2026-03-01T00:00:00Z",
        ),
        (400, error("InvalidStorageClass"), {}, Health.SETUP_FAULT, "option storage_class"),
        (400, error("KMS.DisabledException"), {}, Health.SETUP_FAULT, "option encryption"),
        (501, error("NotImplemented"), {}, Health.SETUP_FAULT, "Leave out"),
        (400, error("InvalidRequest"), {}, Health.CONNECTION_FAULT, "InvalidRequest"),
        (400, error("BadDigest"), {}, Health.CRM_FAULT, "BadDigest"),
        (409, error("OperationAborted"), {}, Health.CRM_FAULT, "OperationAborted"),
        (403, b"", {}, Health.CONNECTION_FAULT, "403"),
    ],
    ids=lambda value: value.decode()[45:80] if isinstance(value, bytes) else "",
)
async def test_an_error_says_whose_it_is_and_what_mends_it(
    script: Script,
    session: aiohttp.ClientSession,
    status: int,
    raw: bytes,
    headers: dict[str, str],
    health: Health,
    words: str,
) -> None:
    reply = await push(script, session, status, raw, **headers)
    assert (reply.health, reply.rejected_whole, reply.pause) == (health, False, None)
    assert {(o.state, o.code) for o in reply.outcomes} == {(RETRY, ErrorCode.DESTINATION_UNAVAILABLE)}
    assert words.casefold() in reply.detail.casefold()
    assert len(script.asked) == 1, "no manifest without its file"


async def test_too_many_calls_are_a_pause(script: Script, session: aiohttp.ClientSession) -> None:
    reply = await push(script, session, 503, error("SlowDown"), **{"Retry-After": "7"})
    assert reply.pause is not None
    assert (reply.pause.seconds, reply.health) == (7, Health.WELL)
    reply = await push(script, session, 503, error("SlowDown"))
    assert reply.pause is not None
    assert reply.pause.seconds == 10


async def test_a_file_that_is_too_large_for_the_store_is_halved_and_then_refused(
    script: Script, session: aiohttp.ClientSession
) -> None:
    reply = await push(script, session, 400, error("EntityTooLarge"))
    assert reply.rejected_whole
    alone = await connect_to(script.url, session).push(contacts(1), told())
    assert (alone.outcomes[0].state, alone.outcomes[0].code) == (FAILED, ErrorCode.DESTINATION_REJECTED)


async def test_a_200_of_somebody_else_stores_nothing(script: Script, session: aiohttp.ClientSession) -> None:
    reply = await push(script, session, 200, b"")
    assert {o.state for o in reply.outcomes} == {EffectState.UNKNOWN}
    assert "without an ETag" in reply.detail


async def test_entities_of_an_error_are_not_expanded(script: Script, session: aiohttp.ClientSession) -> None:
    bomb = b'<!DOCTYPE x [<!ENTITY a "' + b"a" * 1000 + b'"><!ENTITY b "' + b"&a;" * 1000 + b'">]>'
    reply = await push(script, session, 400, bomb + error("InvalidRequest", Message="a &lt;b&gt; &b;&amp;"))
    assert "a <b> &b;& (InvalidRequest)" in reply.detail


async def test_a_key_that_may_only_write_is_no_failure(connect: Connect, sandbox: ObjectCase) -> None:
    policy = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:PutObject","Resource":"*"}]}'
    user = account().make_user(policy)
    keys = FixedAuthorizer(BasicCredentials(username=user["AccessKeyId"], password=user["SecretAccessKey"]))
    crm = connect(authorizer=keys)
    [step] = await crm.check(told())
    assert (step.ok, step.status) == (None, 403)
    written, left = await crm.write_test(Headers("r", "tranche-canary-1"))  # type: ignore[misc]
    assert (written.ok, left.ok) == (True, None)
    assert "Remove contacts/_canary/tranche-canary-1.json" in left.detail
    assert list(sandbox.stored()) == ["contacts/_canary/tranche-canary-1.json"]


async def test_a_bucket_that_is_not_there_is_the_first_thing_seen(connect: Connect) -> None:
    crm = connect(options={"bucket": "no-such-bucket"})
    [step] = await crm.check(told())
    assert step.ok is False


async def test_an_inward_address_is_not_called(sandbox: ObjectCase) -> None:
    async with DestinationSessions(()) as sessions:
        reply = await connect_to(sandbox.url, sessions.to(sandbox.url)).push(contacts(1), told())
    assert (reply.health, reply.outcomes[0].state) == (Health.CONNECTION_FAULT, RETRY)
    assert await sandbox.calls() == []


def test_what_cannot_sign_is_refused() -> None:
    arguments: dict[str, Any] = {"resource": CONTACTS, "options": {}, "session": None, "timeouts": Timeouts()}
    for wrong in (TokenCredentials(token="t"), BasicCredentials(username="kéy", password="p")):
        with pytest.raises(ValueError, match="must be"):
            ObjectStore(base_url="https://s3.example.com", authorizer=FixedAuthorizer(wrong), **arguments)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"bucket": "a/b"}, "options.bucket"),
        ({"path": "/x"}, "options.path"),
        ({"path": "a/../b"}, "options.path"),
        ({"path": "a//b"}, "options.path"),
        ({"region": "eu central"}, "options.region"),
        ({"batch_size": 5_001}, "options.batch_size"),
        ({"fields": {"email": "id"}}, "has another use"),
        ({"fields": {"companies.name": "type"}}, "has another use"),
        ({"verify_every": 7200}, "files are not compared"),
    ],
    ids=str,
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionsError, match=words):
        kinds.parse("object", options)


def test_a_region_in_a_header_field_is_found_whatever_its_case() -> None:
    from jobs.crm.exchange import Answer
    from jobs.crm.object.answers import read

    answer = Answer(status=301, headers=CIMultiDict({"X-Amz-Bucket-Region": "eu-west-1"}), body=b"", seconds=0.1)
    assert read(answer).json() == {"Region": "eu-west-1"}
