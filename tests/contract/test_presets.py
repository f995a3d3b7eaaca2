"""Presets against answers as their vendors document them: the request that is sent, a success, a failed item, a rate
limit, and refused credentials."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

import aiohttp
import msgspec
import pytest

from app.destinations.presets import presets
from app.vocabulary.states import EffectState, ErrorCode
from jobs.crm.http.adapter import Http
from jobs.crm.port import Health, Seen, Timeouts
from tests.contract.conftest import TOKEN, told, with_token
from tests.contract.scripted import Script
from tests.types import CONTACTS, sent

OK, RETRY, FAILED, UNKNOWN = EffectState.OK, EffectState.RETRY, EffectState.FAILED, EffectState.UNKNOWN
NOW = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)
SOON = "1772625620"
"""20 seconds after `NOW`."""
PHONE = "+15555550100"
ADA = sent(
    "k1",
    3,
    email="ada@example.org",
    first_name="Ada",
    last_name="Łovelace",
    phone=PHONE,
    company="Analytical",
    attributes={"plan": "gold"},
)
BOB = sent("k2", 1, email="bob@example.org", first_name="Bob", phone=None)

Preset = Callable[..., Http]


class Recorded(msgspec.Struct, kw_only=True):
    """What one vendor documents."""

    method: str = "POST"
    path: str
    headers: dict[str, str] = {}
    ada: Any
    """Her record, as the body has it."""
    bob: Any
    place: tuple[str, ...] = ()
    """Where the body has the record, or the list of records."""
    rest: dict[str, Any] = {}
    """What else the body has."""
    success: tuple[int, Any]
    remote_id: str | None = None
    created: bool | None = None
    failure: tuple[int, Any]
    """Of Ada alone, or of Bob beside her."""
    why: str
    limit: tuple[int, dict[str, str], Any]
    wait: float
    refused: tuple[int, Any]


ROWS: tuple[dict[str, Any], dict[str, Any]] = (
    {
        "tranche_id": "k1",
        "email": "ada@example.org",
        "first_name": "Ada",
        "last_name": "Łovelace",
        "phone": PHONE,
        "company": "Analytical",
        "plan": "gold",
    },
    {"tranche_id": "k2", "email": "bob@example.org", "first_name": "Bob", "phone": None},
)
RECORDED = {
    "directus": Recorded(
        path="/items/contacts?fields=id%2Ctranche_id",
        headers={"Authorization": f"Bearer {TOKEN}"},
        ada=ROWS[0],
        bob=ROWS[1],
        success=(200, {"data": [{"id": 7, "tranche_id": "k1"}, {"id": 8, "tranche_id": "k2"}]}),
        remote_id="7",
        failure=(
            400,
            {
                "errors": [
                    {
                        "message": 'Value for field "tranche_id" in collection "contacts" has to be unique.',
                        "extensions": {"collection": "contacts", "field": "tranche_id", "code": "RECORD_NOT_UNIQUE"},
                    }
                ]
            },
        ),
        why="has to be unique",
        limit=(
            429,
            {"Retry-After": "2"},
            {"errors": [{"message": "Too many requests", "extensions": {"code": "REQUESTS_EXCEEDED"}}]},
        ),
        wait=2,
        refused=(
            401,
            {"errors": [{"message": "Invalid user credentials.", "extensions": {"code": "INVALID_CREDENTIALS"}}]},
        ),
    ),
    "postgrest": Recorded(
        path="/contacts?on_conflict=tranche_id&select=tranche_id",
        headers={"Authorization": f"Bearer {TOKEN}", "Prefer": "resolution=merge-duplicates,return=representation"},
        ada=ROWS[0],
        bob=ROWS[1],
        success=(201, [{"tranche_id": "k1"}, {"tranche_id": "k2"}]),
        remote_id="k1",
        failure=(400, {"code": "PGRST102", "details": None, "hint": None, "message": "All object keys must match"}),
        why="All object keys must match",
        limit=(429, {"Retry-After": "2"}, {"message": "API rate limit exceeded"}),  # of a gateway before it
        wait=2,
        refused=(401, {"code": "PGRST303", "details": None, "hint": None, "message": "JWT expired"}),
    ),
    "klaviyo": Recorded(
        path="/api/profile-import",
        headers={
            "Authorization": f"Klaviyo-API-Key {TOKEN}",
            "revision": "2026-07-15",
            "Content-Type": "application/vnd.api+json",
        },
        place=("data",),
        ada={
            "type": "profile",
            "attributes": {
                "external_id": "k1",
                "email": "ada@example.org",
                "first_name": "Ada",
                "last_name": "Łovelace",
                "phone_number": PHONE,
                "organization": "Analytical",
                "properties": {"plan": "gold"},
            },
        },
        bob={
            "type": "profile",
            "attributes": {"external_id": "k2", "email": "bob@example.org", "first_name": "Bob", "phone_number": None},
        },
        success=(201, {"data": {"type": "profile", "id": "01GDD", "attributes": {"email": "ada@example.org"}}}),
        remote_id="01GDD",
        created=True,
        failure=(
            400,
            {
                "errors": [
                    {
                        "id": "0b1c",
                        "status": 400,
                        "code": "invalid",
                        "title": "Invalid input.",
                        "detail": "Invalid phone number format (Example of a valid format: +12345678901)",
                        "source": {"pointer": "/data/attributes/phone_number"},
                    }
                ]
            },
        ),
        why="Invalid phone number format",
        limit=(
            429,
            {"Retry-After": "20", "RateLimit-Limit": "75, 75;w=1, 700;w=60"},
            {"errors": [{"code": "throttled", "detail": "Request was throttled. Expected available in 20 seconds."}]},
        ),
        wait=20,
        refused=(401, {"errors": [{"code": "not_authenticated", "detail": "Missing or invalid private key."}]}),
    ),
    "mailchimp": Recorded(
        method="PUT",
        path="/lists/v1/members/ada%40example.org?skip_merge_validation=true",
        headers={"Authorization": f"Bearer {TOKEN}"},
        ada={
            "email_address": "ada@example.org",
            "status_if_new": "transactional",
            "merge_fields": {"FNAME": "Ada", "LNAME": "Łovelace", "PHONE": PHONE, "plan": "gold"},
        },
        bob={
            "email_address": "bob@example.org",
            "status_if_new": "transactional",
            "merge_fields": {"FNAME": "Bob", "PHONE": ""},
        },
        success=(200, {"id": "62eeb292", "email_address": "ada@example.org", "status": "unsubscribed"}),
        remote_id="62eeb292",
        failure=(
            400,
            {
                "type": "https://mailchimp.com/developer/marketing/docs/errors/",
                "title": "Invalid Resource",
                "status": 400,
                "detail": "Please provide a valid email address.",
                "instance": "c1a2",
            },
        ),
        why="Please provide a valid email address.",
        limit=(
            429,
            {},
            {"title": "Too Many Requests", "status": 429, "detail": "You have exceeded the limit of 10 connections."},
        ),
        wait=10,
        refused=(401, {"title": "API Key Invalid", "status": 401, "detail": "Your API key may be invalid."}),
    ),
    "brevo": Recorded(
        path="/v3/contacts",
        headers={"api-key": TOKEN},
        ada={
            "email": "ada@example.org",
            "ext_id": "k1",
            "attributes": {"FIRSTNAME": "Ada", "LASTNAME": "Łovelace", "SMS": PHONE, "plan": "gold"},
            "updateEnabled": True,
        },
        bob={
            "email": "bob@example.org",
            "ext_id": "k2",
            "attributes": {"FIRSTNAME": "Bob", "SMS": ""},
            "updateEnabled": True,
        },
        success=(201, {"id": 21}),
        remote_id="21",
        created=True,
        failure=(400, {"code": "invalid_parameter", "message": "Invalid phone number"}),
        why="Invalid phone number",
        limit=(429, {"x-sib-ratelimit-reset": "3", "x-sib-ratelimit-remaining": "0"}, {"message": "Rate limit"}),
        wait=3,
        refused=(401, {"code": "unauthorized", "message": "Key not found"}),
    ),
    "sendgrid": Recorded(
        method="PUT",
        path="/v3/marketing/contacts",
        headers={"Authorization": f"Bearer {TOKEN}"},
        place=("contacts",),
        ada={
            "external_id": "k1",
            "email": "ada@example.org",
            "first_name": "Ada",
            "last_name": "Łovelace",
            "phone_number": PHONE,
            "custom_fields": {"plan": "gold"},
        },
        bob={"external_id": "k2", "email": "bob@example.org", "first_name": "Bob"},
        success=(202, {"job_id": "j-1"}),  # and then what TASKS has
        failure=(400, {"errors": [{"field": "contacts[1].email", "message": "email is invalid"}]}),
        why="email is invalid",
        limit=(429, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": SOON}, {"errors": [{"message": "too many"}]}),
        wait=20,
        refused=(401, {"errors": [{"field": None, "message": "authorization required"}]}),
    ),
    "customerio": Recorded(
        path="/api/v2/batch",
        headers={"Authorization": f"Basic {TOKEN}"},
        place=("batch",),
        ada={
            "type": "person",
            "action": "identify",
            "identifiers": {"id": "k1"},
            "attributes": {
                "email": "ada@example.org",
                "first_name": "Ada",
                "last_name": "Łovelace",
                "phone": PHONE,
                "company": "Analytical",
                "plan": "gold",
            },
        },
        bob={
            "type": "person",
            "action": "identify",
            "identifiers": {"id": "k2"},
            "attributes": {"email": "bob@example.org", "first_name": "Bob", "phone": ""},
        },
        success=(200, {}),
        failure=(
            207,
            {
                "errors": [
                    {"batch_index": 1, "reason": "invalid", "field": "email", "message": "value is not an address"}
                ]
            },
        ),
        why="value is not an address",
        limit=(429, {"Retry-After": "2"}, {"meta": {"errors": ["too many requests"]}}),
        wait=2,
        refused=(401, {"meta": {"errors": ["unauthorized"]}}),
    ),
    "intercom": Recorded(
        path="/contacts",
        headers={"Authorization": f"Bearer {TOKEN}", "Intercom-Version": "2.14"},
        ada={
            "role": "user",
            "external_id": "k1",
            "email": "ada@example.org",
            "phone": PHONE,
            "name": "Ada Łovelace",
            "custom_attributes": {"plan": "gold"},
        },
        bob={"role": "user", "external_id": "k2", "email": "bob@example.org", "phone": None},
        success=(200, {"type": "contact", "id": "6762f0", "external_id": "k1", "role": "user"}),
        remote_id="6762f0",
        failure=(
            409,
            {
                "type": "error.list",
                "request_id": "b1",
                "errors": [
                    {"code": "conflict", "message": "A contact matching those details already exists with id=6762f1"}
                ],
            },
        ),
        why="already exists with id=6762f1",
        limit=(
            429,
            {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": SOON},
            {"type": "error.list", "errors": [{"code": "rate_limit_exceeded", "message": "Exceeded rate limit"}]},
        ),
        wait=20,
        refused=(401, {"type": "error.list", "errors": [{"code": "unauthorized", "message": "Access Token Invalid"}]}),
    ),
    "braze": Recorded(
        path="/users/track",
        headers={"Authorization": f"Bearer {TOKEN}"},
        place=("attributes",),
        ada={
            "external_id": "k1",
            "email": "ada@example.org",
            "first_name": "Ada",
            "last_name": "Łovelace",
            "phone": PHONE,
            "company": "Analytical",
            "plan": "gold",
        },
        bob={"external_id": "k2", "email": "bob@example.org", "first_name": "Bob", "phone": None},
        success=(201, {"message": "success", "attributes_processed": 2}),
        failure=(
            201,
            {
                "message": "success",
                "attributes_processed": 1,
                "errors": [{"type": "'email' is not valid", "input_array": "attributes", "index": 1}],
            },
        ),
        why="'email' is not valid",
        limit=(429, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": SOON}, {"message": "Rate limit exceeded"}),
        wait=20,
        refused=(401, {"message": "Invalid API Key"}),
    ),
    "iterable": Recorded(
        path="/api/users/bulkUpdate",
        headers={"Api-Key": TOKEN},
        place=("users",),
        ada={
            "userId": "k1",
            "email": "ada@example.org",
            "preferUserId": True,
            "mergeNestedObjects": True,
            "dataFields": {
                "firstName": "Ada",
                "lastName": "Łovelace",
                "phoneNumber": PHONE,
                "company": "Analytical",
                "plan": "gold",
            },
        },
        bob={
            "userId": "k2",
            "email": "bob@example.org",
            "preferUserId": True,
            "mergeNestedObjects": True,
            "dataFields": {"firstName": "Bob"},
        },
        success=(
            200,
            {
                "successCount": 2,
                "failCount": 0,
                "invalidEmails": [],
                "invalidUserIds": [],
                "filteredOutFields": [],
                "createdFields": [],
                "failedUpdates": {"invalidEmails": [], "notFoundUserIds": [], "forgottenEmails": []},
            },
        ),
        failure=(
            200,
            {
                "successCount": 1,
                "failCount": 1,
                "invalidEmails": ["bob@example.org"],
                "failedUpdates": {"invalidEmails": ["bob@example.org"], "notFoundUserIds": []},
            },
        ),
        why="bob@example.org",
        limit=(429, {}, {"msg": "Rate limited", "code": "RateLimitExceeded"}),
        wait=10,
        refused=(401, {"msg": "Invalid API key", "code": "BadApiKey"}),
    ),
    "segment": Recorded(
        path="/v1/batch",
        headers={"Authorization": f"Basic {TOKEN}"},
        place=("batch",),
        ada={
            "type": "identify",
            "userId": "k1",
            "messageId": "tranche-k1-3",
            "traits": {
                "email": "ada@example.org",
                "firstName": "Ada",
                "lastName": "Łovelace",
                "phone": PHONE,
                "company": {"name": "Analytical"},
                "plan": "gold",
            },
        },
        bob={
            "type": "identify",
            "userId": "k2",
            "messageId": "tranche-k2-1",
            "traits": {"email": "bob@example.org", "firstName": "Bob", "phone": None},
        },
        success=(200, {"success": True}),
        failure=(400, {"success": False, "message": "malformed JSON", "code": "invalid_request"}),
        why="malformed JSON",
        limit=(429, {"Retry-After": "5"}, {"success": False, "message": "too many requests"}),
        wait=5,
        refused=(401, {"success": False, "message": "invalid write key", "code": "invalid_request"}),
    ),
    "pipedrive": Recorded(
        path="/api/v2/persons",
        headers={"x-api-token": TOKEN},
        ada={
            "name": "Ada Łovelace",
            "emails": [{"value": "ada@example.org", "primary": True, "label": "work"}],
            "phones": [{"value": PHONE, "primary": True, "label": "work"}],
            "custom_fields": {"v1": "k1", "plan": "gold"},
        },
        bob={
            "emails": [{"value": "bob@example.org", "primary": True, "label": "work"}],
            "phones": [],
            "custom_fields": {"v1": "k2"},
        },
        success=(201, {"success": True, "data": {"id": 12, "name": "Ada Łovelace"}}),
        remote_id="12",
        failure=(400, {"success": False, "error": "Validation failed: name: Name must be given.", "code": "ERR"}),
        why="Name must be given.",
        limit=(429, {"x-ratelimit-reset": "2", "x-ratelimit-remaining": "0"}, {"success": False, "error": "rate"}),
        wait=2,
        refused=(401, {"success": False, "error": "unauthorized access", "errorCode": 401}),
    ),
}
TASK_DONE = (
    200,
    {
        "id": "j-1",
        "status": "completed",
        "job_type": "upsert_contacts",
        "results": {"requested_count": 2, "created_count": 1, "updated_count": 1, "errored_count": 0},
    },
)


@pytest.fixture
async def connect(script: Script) -> AsyncIterator[Preset]:
    async with aiohttp.ClientSession() as session:

        def connect(name: str, **options: Any) -> Http:
            values = dict.fromkeys(presets()[name].values, "v1")
            return Http(
                resource=CONTACTS,
                session=session,
                base_url=script.url,
                authorizer=with_token(),
                options={"preset": name, "values": values, **options},
                timeouts=Timeouts(connect=1.0, total=2.0),
                now=lambda: NOW,
            )

        yield connect


def test_every_preset_has_recorded_answers() -> None:
    assert RECORDED.keys() == presets().keys()


@pytest.mark.parametrize("name", RECORDED)
async def test_the_request_and_its_success(connect: Preset, script: Script, name: str) -> None:
    recorded, crm = RECORDED[name], connect(name)
    script.answers = [recorded.success, TASK_DONE] if name == "sendgrid" else []
    script.status, script.body = recorded.success
    single = crm.batch_size == 1
    outcomes = (await crm.push([ADA] if single else [ADA, BOB], told())).outcomes

    assert {o.state for o in outcomes} == {OK}
    assert (outcomes[0].remote_id, outcomes[0].created) == (recorded.remote_id, recorded.created)
    asked, body = script.asked[0], script.bodies[0]
    assert (asked.method, asked.raw_path) == (recorded.method, recorded.path)
    assert {header: asked.headers.get(header) for header in recorded.headers} == recorded.headers
    for step in recorded.place:
        assert list(body) == [step]
        body = body[step]
    if single:
        assert body == recorded.ada
        await crm.push([BOB], told())
        body = script.bodies[1]
        for step in recorded.place:
            body = body[step]
        assert body == recorded.bob
    else:
        assert body == [recorded.ada, recorded.bob]


@pytest.mark.parametrize("name", RECORDED)
async def test_a_failed_item(connect: Preset, script: Script, name: str) -> None:
    recorded, crm = RECORDED[name], connect(name)
    script.status, script.body = recorded.failure
    if crm.batch_size == 1 or recorded.failure[0] >= 400:
        # A batch that is refused as a whole is sent again in halves, down to one record.
        reply = await crm.push([ADA], told())
        [failed] = reply.outcomes
        if crm.batch_size > 1:
            assert (await crm.push([ADA, BOB], told())).rejected_whole
    else:
        reply = await crm.push([ADA, BOB], told())
        well, failed = reply.outcomes
        assert well.state == OK
    assert (failed.state, failed.code) == (FAILED, ErrorCode.DESTINATION_REJECTED)
    assert recorded.why in failed.detail
    assert reply.health is Health.WELL


@pytest.mark.parametrize("name", RECORDED)
async def test_a_rate_limit(connect: Preset, script: Script, name: str) -> None:
    recorded, crm = RECORDED[name], connect(name)
    script.status, script.headers, script.body = recorded.limit
    reply = await crm.push([ADA], told())
    assert reply.pause is not None
    assert (reply.pause.seconds, reply.pause.code) == (recorded.wait, ErrorCode.DESTINATION_RATE_LIMIT)
    assert reply.outcomes[0].state == RETRY
    assert reply.health is Health.WELL


@pytest.mark.parametrize("name", RECORDED)
async def test_refused_credentials(connect: Preset, script: Script, name: str) -> None:
    crm = connect(name)
    script.status, script.body = RECORDED[name].refused
    reply = await crm.push([ADA], told())
    assert reply.health is Health.CONNECTION_FAULT
    assert reply.outcomes[0].state == RETRY


@pytest.mark.parametrize("name", RECORDED)
async def test_a_lost_answer_can_be_settled_but_for_pipedrive(connect: Preset, script: Script, name: str) -> None:
    crm = connect(name)
    script.status, script.body = 502, None
    assert (await crm.push([ADA], told())).outcomes[0].state == UNKNOWN
    assert (crm.reads_back or crm.repeatable) == (name != "pipedrive")


READ_BACK: dict[str, tuple[str, str, Any]] = {
    "directus": (
        "GET",
        "/items/contacts?filter=%7B%22tranche_id%22%3A%7B%22_in%22%3A%5B%22k1%22%2C%22k2%22%5D%7D%7D&limit=-1",
        {"data": [{"id": "01GDD", **ROWS[0], "other": None}]},
    ),
    "postgrest": ("GET", "/contacts?tranche_id=in.%28%22k1%22%2C%22k2%22%29", [{"id": 7, **ROWS[0], "other": None}]),
    "klaviyo": (
        "GET",
        "/api/profiles?filter=equals%28external_id%2C%22k1%22%29",
        {
            "data": [
                {
                    "type": "profile",
                    "id": "01GDD",
                    "attributes": {
                        "external_id": "k1",
                        "email": "ada@example.org",
                        "first_name": "Ada",
                        "last_name": "Łovelace",
                        "phone_number": PHONE,
                        "organization": "Analytical",
                        "properties": {"plan": "gold", "other": 1},
                    },
                }
            ],
            "links": {"next": None},
        },
    ),
    "mailchimp": (
        "GET",
        "/lists/v1/members/ada%40example.org",
        {
            "id": "01GDD",
            "email_address": "Ada@example.org",
            "status": "unsubscribed",
            "merge_fields": {"FNAME": "Ada", "LNAME": "Łovelace", "PHONE": PHONE, "plan": "gold", "BIRTHDAY": ""},
        },
    ),
    "brevo": (
        "GET",
        "/v3/contacts/k1?identifierType=ext_id",
        {
            "id": "01GDD",
            "email": "ada@example.org",
            "attributes": {"FIRSTNAME": "Ada", "LASTNAME": "Łovelace", "SMS": PHONE, "plan": "gold"},
        },
    ),
    "intercom": (
        "GET",
        "/contacts/find_by_external_id/k1?escape_identity=false",
        {
            "type": "contact",
            "id": "01GDD",
            "external_id": "k1",
            "email": "ada@example.org",
            "phone": PHONE,
            "name": "Ada Łovelace",
            "custom_attributes": {"plan": "gold"},
        },
    ),
    "braze": (
        "POST",
        "/users/export/ids",
        {
            "message": "success",
            "users": [
                {
                    "external_id": "k1",
                    "email": "ada@example.org",
                    "first_name": "Ada",
                    "last_name": "Łovelace",
                    "phone": PHONE,
                    "custom_attributes": {"company": "Analytical", "plan": "gold"},
                }
            ],
            "invalid_user_ids": ["k2"],
        },
    ),
}


@pytest.mark.parametrize("name", RECORDED)
async def test_reading_back(connect: Preset, script: Script, name: str) -> None:
    crm = connect(name)
    assert crm.reads_back == (name in READ_BACK)
    if name not in READ_BACK:
        return
    method, path, script.body = READ_BACK[name]
    records = [ADA] if crm.batch_size == 1 else [ADA, BOB]
    back = await crm.read_back(records, told())
    assert back.seen == {"k1": Seen.MATCHES} | ({} if crm.batch_size == 1 else {"k2": Seen.ABSENT})
    assert back.remote_ids == {"k1": "k1" if name in ("braze", "postgrest") else "01GDD"}
    [asked] = script.asked
    assert (asked.method, asked.raw_path) == (method, path)

    changed = msgspec.structs.replace(ADA, fields={**ADA.fields, "first_name": "Augusta"})
    assert (await crm.read_back([changed], told())).seen == {"k1": Seen.DIFFERS}
    script.status, script.body = (200, {"data": []}) if name == "klaviyo" else (404, {"code": "not_found"})
    if crm.batch_size == 1:
        assert (await crm.read_back([ADA], told())).seen == {"k1": Seen.ABSENT}


REMOVED: dict[str, tuple[str, str, Any, int, Any]] = {
    "directus": ("DELETE", "/items/contacts", ["r1"], 204, None),
    "postgrest": (
        "DELETE",
        "/contacts?tranche_id=in.%28%22k1%22%29&select=tranche_id",
        None,
        200,
        [{"tranche_id": "k1"}],
    ),
    "mailchimp": ("DELETE", "/lists/v1/members/r1", None, 204, None),
    "brevo": ("DELETE", "/v3/contacts/k1?identifierType=ext_id", None, 204, None),
    "customerio": (
        "POST",
        "/api/v2/batch",
        {"batch": [{"type": "person", "action": "delete", "identifiers": {"id": "k1"}}]},
        200,
        {},
    ),
    "intercom": ("DELETE", "/contacts/r1", None, 200, {"type": "contact", "id": "r1", "deleted": True}),
    "braze": ("POST", "/users/delete", {"external_ids": ["k1"]}, 201, {"deleted": 1, "message": "success"}),
    "pipedrive": ("DELETE", "/api/v2/persons/r1", None, 200, {"success": True, "data": {"id": 1}}),
}


@pytest.mark.parametrize("name", RECORDED)
async def test_removing(connect: Preset, script: Script, name: str) -> None:
    crm = connect(name)
    assert crm.archives == (name in REMOVED)
    if name not in REMOVED:
        return
    method, path, body, script.status, answer = REMOVED[name]
    script.body, script.raw = answer, b"" if answer is None else None
    gone = sent("k1", 4, deleted=True, remote_id="r1")
    assert [o.state for o in (await crm.archive([gone], told())).outcomes] == [OK]
    assert (script.asked[0].method, script.asked[0].raw_path, script.bodies[0]) == (method, path, body)


@pytest.mark.parametrize(
    ("name", "method", "path", "body"),
    [
        (
            "brevo",
            "PUT",
            "/v3/contacts/k1?identifierType=ext_id",
            {
                "attributes": {
                    "EMAIL": "ada@example.org",
                    "FIRSTNAME": "Ada",
                    "LASTNAME": "Łovelace",
                    "SMS": PHONE,
                    "plan": "gold",
                }
            },
        ),
        ("intercom", "PUT", "/contacts/r1", RECORDED["intercom"].ada),
        ("pipedrive", "PATCH", "/api/v2/persons/r1", RECORDED["pipedrive"].ada),
    ],
)
async def test_updating_by_the_id_there(
    connect: Preset, script: Script, name: str, method: str, path: str, body: Any
) -> None:
    script.body = {"success": True}
    await connect(name).push([msgspec.structs.replace(ADA, remote_id="r1")], told())
    assert (script.asked[0].method, script.asked[0].raw_path) == (method, path)
    assert script.bodies[0] == body


async def test_directus_updates_by_its_own_ids(connect: Preset, script: Script) -> None:
    crm = connect("directus")
    assert crm.updates_apart
    script.body = {"data": [{"id": 7, "tranche_id": "k1"}, {"id": 8, "tranche_id": "k2"}]}
    known = [msgspec.structs.replace(record, remote_id=key) for record, key in ((ADA, "7"), (BOB, "8"))]
    assert {o.state for o in (await crm.push(known, told())).outcomes} == {OK}
    assert (script.asked[0].method, script.asked[0].raw_path) == ("PATCH", RECORDED["directus"].path)
    assert script.bodies[0] == [{"id": "7", **ROWS[0]}, {"id": "8", **ROWS[1]}]


@pytest.mark.parametrize("name", ["directus", "postgrest"])
async def test_a_list_of_all_records(connect: Preset, script: Script, name: str) -> None:
    crm = connect(name)
    rows = [{"id": 7, "tranche_id": "k1"}, {"id": 8, "tranche_id": "k2"}]
    script.body = {"data": rows} if name == "directus" else rows
    page = await crm.list_keys(None, told())
    assert page.keys == ({"k1": "7", "k2": "8"} if name == "directus" else {"k1": "k1", "k2": "k2"})
    await crm.list_keys(page.after, told())
    field, sign = ("filter", '{"id":{"_gt":"8"}}') if name == "directus" else ("tranche_id", "gt.k2")
    assert field not in script.asked[0].query
    assert script.asked[1].query[field] == sign


async def test_sendgrid_counts_failures_and_halves_find_them(connect: Preset, script: Script) -> None:
    crm = connect("sendgrid")
    bad = {**TASK_DONE[1], "results": {"requested_count": 2, "errored_count": 1, "errors_url": "https://x"}}
    script.answers = [(202, {"job_id": "j-1"}), (200, bad)]
    reply = await crm.push([ADA, BOB], told())
    assert reply.rejected_whole
    script.answers = [(202, {"job_id": "j-1"}), (200, bad)]
    [failed] = (await crm.push([ADA], told())).outcomes
    assert failed.state == FAILED
    assert script.asked[1].raw_path == "/v3/marketing/contacts/imports/j-1"
