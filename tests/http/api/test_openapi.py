"""The document tells of every route, and of nothing that is not so."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from jsonschema import FormatChecker
from litestar.routes import HTTPRoute
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import validate

from app.api.openapi import document as openapi
from app.api.routes import OPERATIONS
from app.http import problems
from app.http.operation import unroute_action
from app.http.security_headers import shield
from app.main import create_app
from app.settings import Settings
from app.vocabulary.states import ErrorCode, JobKind, JobState
from tests.http.conftest import Answer, Api, person
from tests.http.dead_letters.test_dead_letters import fail, post
from tests.http.made_jobs import Db, make_job
from tests.http.records.test_contacts import add


def make_document() -> dict[str, Any]:
    return openapi.make_document(OPERATIONS, Settings())


COMMITTED = Path(__file__).parents[3] / "openapi" / "openapi.yaml"


def test_the_committed_document_is_the_served_one() -> None:
    """Otherwise: make openapi."""
    assert COMMITTED.read_bytes() == openapi.Documents(OPERATIONS, Settings()).as_yaml()


def test_the_document_is_valid() -> None:
    validate(make_document())


async def test_all_three_forms_are_served_to_everybody(api: Api) -> None:
    public = api.as_key(None)
    as_json = await public.get("/openapi.json")
    assert as_json.json()["info"]["title"] == "Tranche"
    served = await public.get("/openapi.yaml")
    assert served.headers["Content-Type"] == "application/yaml"
    assert yaml.safe_load(served.body) == as_json.json()
    page = await public.get("/docs")
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    for path in as_json.json()["paths"]:
        assert path.encode() in page.body
    assert not re.search(rb'(src|href)="?https?:', page.body)


def test_every_route_is_in_the_document() -> None:
    app = create_app(Settings(database_url="postgresql://127.0.0.1:9/x", redis_url="redis://127.0.0.1:9"))
    routes = {
        (unroute_action(re.sub(r":\w+}", "}", route.path)), method.lower())
        for route in app.routes
        if isinstance(route, HTTPRoute)
        for handler in route.route_handlers
        if handler.include_in_schema is not False
        for method in handler.http_methods
        if method != "OPTIONS"
    }
    paths = make_document()["paths"]
    described = {(re.sub("^/v1/contacts", "/v1/{type}", p), m) for p, found in paths.items() for m in found}
    assert {(p, m) for p, m in described if not p.startswith("/v1/companies")} == routes
    assert {p for p in paths if p.startswith("/v1/companies")} == {
        p.replace("contacts", "companies") for p in paths if p.startswith("/v1/contacts")
    }


async def test_no_answer_has_a_header_or_status_that_is_not_told(api: Api, db: Db) -> None:
    """One request for each way a route can end, as far as one service can be made to."""
    document = make_document()
    nobody = api.as_key(None)
    done = await api.push([person(1)], key="k")
    job = done.headers["Location"]
    tag = (await api.get(job)).headers["ETag"]
    running, queued = await make_job(db), await make_job(db, "queued")
    await add(api, name="second")
    failed = f"/v1/jobs/{await fail(api, db, 7, 8)}"
    await fail(api, db, 9)
    dead_letters, named = "/v1/dead-letters", {"Idempotency-Key": "again"}
    one = (await api.get(dead_letters)).json()["dead_letters"][0]["url"]
    certain = await db.fetchval("SELECT max(dead_letter_id) FROM dead_letters")
    bulk = "/v1/contacts:bulk"
    seen: list[tuple[str, str, Answer]] = [
        (bulk, "post", done),
        (bulk, "post", await api.push([person(1)], key="k", headers={"Prefer": "return=minimal"})),
        (bulk, "post", await api.push([], headers={"Prefer": "return=minimal"})),
        (bulk, "post", await api.push(b"")),
        (bulk, "post", await nobody.push([])),
        (bulk, "post", await api.push([], headers={"Accept": "text/csv"})),
        (bulk, "post", await api.push([], headers={"Content-Type": "text/csv"})),
        (bulk, "post", await api.push([], headers={"Content-Type": "text/plain"})),
        (bulk, "post", await api.push([], headers={"Content-Encoding": "br"})),
        (bulk, "post", await api.push([person(2)], key="k")),
        (bulk, "post", await api.push([{}] * 10_001)),
        (bulk, "post", await api.push([person(3)], key="later", headers={"Prefer": "respond-async"})),
        (bulk, "post", await api.push([person(3)], key="later", headers={"Prefer": "respond-async"})),
        ("/v1/jobs", "get", await api.get("/v1/jobs?limit=1")),
        ("/v1/jobs", "get", await api.get("/v1/jobs?limit=x")),
        ("/v1/jobs", "get", await nobody.get("/v1/jobs")),
        ("/v1/jobs/{job_id}", "get", await api.get(job, {"Prefer": "wait=1"})),
        ("/v1/jobs/{job_id}", "get", await api.get(job, {"If-None-Match": tag})),
        ("/v1/jobs/{job_id}", "get", await api.get("/v1/jobs/x")),
        ("/v1/jobs/{job_id}/cancel", "post", await api.request("POST", job + "/cancel")),
        ("/v1/jobs/{job_id}/cancel", "post", await api.request("POST", f"/v1/jobs/{running}/cancel")),
        ("/v1/jobs/{job_id}/retry", "post", await api.request("POST", job + "/retry")),
        ("/v1/jobs/{job_id}/retry", "post", await api.request("POST", f"/v1/jobs/{running}/retry")),
        ("/v1/jobs/{job_id}/retry", "post", await api.request("POST", f"{failed}/retry", headers=named)),
        (dead_letters, "get", await api.get(dead_letters)),
        (dead_letters, "get", await api.get(f"{dead_letters}?limit=1&resolution=any")),
        (dead_letters, "get", await api.get(f"{dead_letters}?state=x")),
        (f"{dead_letters}/clusters", "get", await api.get(f"{dead_letters}/clusters")),
        (f"{dead_letters}/{{dead_letter_id}}", "get", await api.get(one)),
        (f"{dead_letters}/{{dead_letter_id}}", "get", await api.get(f"{dead_letters}/x")),
        (f"{dead_letters}/replay", "post", await post(api, f"{dead_letters}/replay", all=True, preview=True)),
        (f"{dead_letters}/replay", "post", await post(api, f"{dead_letters}/replay", all=True)),
        (f"{dead_letters}/replay", "post", await post(api, f"{dead_letters}/replay", all=True)),
        (f"{dead_letters}/drop", "post", await post(api, f"{dead_letters}/drop", all=True, reason="x")),
        (f"{dead_letters}/settle", "post", await post(api, f"{dead_letters}/settle", ids=[certain], reason="x")),
        (f"{dead_letters}/settle", "post", await post(api, f"{dead_letters}/settle", ids=[9_999], reason="x")),
        (f"{dead_letters}/sagas", "get", await api.get(f"{dead_letters}/sagas")),
        (f"{dead_letters}/sagas/{{saga_id}}/retry", "post", await api.request("POST", f"{dead_letters}/sagas/x/retry")),
        (f"{dead_letters}/sagas/{{saga_id}}/drop", "post", await post(api, f"{dead_letters}/sagas/x/drop", reason="x")),
        ("/v1/jobs/{job_id}/undo", "post", await api.request("POST", job + "/undo")),
        ("/v1/jobs/{job_id}/undo", "post", await api.request("POST", f"/v1/jobs/{queued}/undo")),
        ("/v1/jobs/{job_id}/undo", "post", await api.request("POST", "/v1/jobs/x/undo")),
        ("/v1/contacts/{record_id}/history", "get", await api.get("/v1/contacts/c1/history?limit=1")),
        ("/v1/contacts/{record_id}/history", "get", await api.get("/v1/contacts/c0/history")),
        ("/v1/audit-log", "get", await api.get("/v1/audit-log?limit=1")),
        ("/v1/jobs/{job_id}/events", "get", await api.get(job + "/events")),
        ("/v1/jobs/{job_id}/events", "get", await api.get(job + "/events", {"Last-Event-ID": "1"})),
        ("/v1/jobs/{job_id}/events", "get", await api.get(job + "/events", {"Accept": "text/csv"})),
        ("/v1/jobs/{job_id}/stream-token", "post", await api.request("POST", job + "/stream-token")),
        ("/v1/jobs/{job_id}/items", "get", await api.get(job + "/items")),
        ("/v1/idempotency-keys/{key}", "get", await api.get("/v1/idempotency-keys/k")),
        ("/v1/contacts/{record_id}", "get", await api.get("/v1/contacts/c1")),
        ("/v1/contacts/{record_id}", "get", await api.get("/v1/contacts/c1", {"Accept": "a/b"})),
        ("/v1/destinations", "post", await add(api)),
        ("/v1/destinations", "post", await add(api)),
        ("/v1/destinations", "get", await api.get("/v1/destinations")),
        ("/v1/destinations/{name}/pause", "post", await api.request("POST", "/v1/destinations/hubspot/pause")),
        ("/v1/destinations/{name}", "delete", await api.request("DELETE", "/v1/destinations/hubspot")),
        *await call_webhooks(api),
        ("/health", "get", await api.get("/health")),
        ("/metrics", "get", await api.get("/metrics")),
        ("/metrics", "get", await nobody.get("/metrics")),
        ("/health/live", "get", await api.get("/health/live")),
        ("/health/ready", "get", await api.get("/health/ready")),
        *[
            (path, "get", await nobody.get(path))
            for path in ("/openapi.json", "/openapi.yaml", "/docs", "/docs/problems")
        ],
        ("/docs", "get", await nobody.get("/docs", {"Accept": "text/csv"})),
        ("/", "get", await nobody.get("/")),
    ]
    ordinary = {"connection", "content-type", "content-length", "transfer-encoding", "server", "date"}
    ordinary |= {name.decode() for name, _ in shield([], "https")}  # said once, for every answer
    for path, method, answer in seen:
        response = document["paths"][path][method]["responses"][str(answer.status)]
        if "$ref" in response:
            response = document["components"]["responses"][response["$ref"].rpartition("/")[2]]
        told = {name.lower() for name in response["headers"]} | ordinary
        assert {name.lower() for name in answer.headers} <= told, (path, method, answer.status)
        if answer.body:
            assert answer.headers["Content-Type"].partition(";")[0] in response["content"]
    assert {answer.status for _, _, answer in seen} == {
        200,
        201,
        202,
        204,
        207,
        304,
        400,
        401,
        404,
        406,
        409,
        413,
        415,
        422,
    }


async def call_webhooks(api: Api) -> list[tuple[str, str, Answer]]:
    base, one = "/v1/webhook-endpoints", "/v1/webhook-endpoints/{endpoint_id}"
    added = await api.request("POST", base, data=b'{"url":"https://example.com/"}')
    here = added.headers["Location"]
    tested = await api.request("POST", here + "/test")
    message = tested.headers["Location"]
    return [
        (base, "post", added),
        (base, "post", await api.request("POST", base, data=b"{}")),
        (base, "get", await api.get(base)),
        (one, "get", await api.get(here)),
        (f"{one}/rotate", "post", await api.request("POST", here + "/rotate")),
        (f"{one}/test", "post", tested),
        (f"{one}/messages", "get", await api.get(here + "/messages?limit=1")),
        (f"{one}/messages/{{message_id}}", "get", await api.get(message)),
        (f"{one}/messages/{{message_id}}/replay", "post", await api.request("POST", message + "/replay")),
        (f"{one}/replay", "post", await api.request("POST", here + "/replay", data=b'{"state":"dead"}')),
        (one, "patch", await api.request("PATCH", here, data=b'{"state":"disabled"}')),
        (f"{one}/test", "post", await api.request("POST", here + "/test")),
        (one, "delete", await api.request("DELETE", here)),
        (one, "get", await api.get(here)),
    ]


def test_every_example_fits_its_schema() -> None:
    """Spectral: oas3-valid-media-example; Redocly: no-invalid-media-type-examples, no-invalid-parameter-examples."""
    document = make_document()
    checked = 0
    for where, content in [*_contents(document, "#"), *_parameters(document)]:
        examples = [content["example"]] if "example" in content else []
        examples += [example["value"] for example in content.get("examples", {}).values()]
        for example in examples:
            schema = content["schema"] | {"components": document["components"]}
            errors = list(OAS31Validator(schema, format_checker=FormatChecker()).iter_errors(example))
            assert not errors, (where, errors[0].message)
            checked += 1
    assert checked > 40


def test_every_array_says_what_it_holds() -> None:
    """Spectral: array-items. openapi-python-client leaves out every operation that refers to such a schema."""
    bare = [
        where
        for where, schema in _objects(make_document(), "#")
        if schema.get("type") == "array" and "items" not in schema
    ]
    assert not bare


def test_every_operation_tells_of_a_client_error() -> None:
    """Redocly: operation-4xx-response."""
    for path, operations in make_document()["paths"].items():
        for method, operation in operations.items():
            assert any(status.startswith("4") for status in operation["responses"]), (method, path)


def test_the_document_names_a_contact() -> None:
    """Spectral: info-contact."""
    assert make_document()["info"]["contact"]["name"]


def test_words_of_answers_are_enumerated() -> None:
    """A generated client then has a type for them."""
    schemas = make_document()["components"]["schemas"]
    queued = schemas["QueuedAnswer"]["properties"]
    assert queued["state"] == {"$ref": "#/components/schemas/JobState"}
    for name in ("QueuedAnswer", "ImportAnswer", "AttemptAnswer"):
        words = schemas[name]["properties"]["effects"]["additionalProperties"]
        assert words == {"$ref": "#/components/schemas/EffectState"}, name


def test_events_name_every_state_and_kind_of_a_job() -> None:
    body = make_document()["webhooks"]["job.finished"]["post"]["requestBody"]["content"]["application/json"]
    data = body["schema"]["properties"]["data"]["properties"]
    assert data["state"]["enum"] == [*JobState]
    assert data["kind"]["enum"] == [*JobKind]


def test_every_code_is_told() -> None:
    schemas = make_document()["components"]["schemas"]
    assert set(schemas["ErrorCode"]["enum"]) == set(ErrorCode)
    assert "IDEMPOTENCY_KEY_REUSED" in schemas["Problem"]["properties"]["code"]["enum"]
    assert schemas["ContactItem"]["required"] == ["id", "email"]
    assert schemas["ContactItem"]["properties"]["id"]["maxLength"] == 255


def _objects(value: Any, where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object of the document that is no example."""
    if isinstance(value, dict):
        yield where, value
        for name, member in value.items():
            if name not in ("example", "examples"):
                yield from _objects(member, f"{where}/{name}")
    elif isinstance(value, list):
        for index, member in enumerate(value):
            yield from _objects(member, f"{where}/{index}")


def _parameters(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for where, value in _objects(document["paths"], "#"):
        if "in" in value and "schema" in value:
            yield where, value


def _contents(value: Any, where: str) -> Any:
    if isinstance(value, dict):
        for name, member in value.items():
            if name == "content":
                yield from ((f"{where}/content/{t}", c) for t, c in member.items())
            else:
                yield from _contents(member, f"{where}/{name}")


async def test_the_page_shows_examples_as_they_are_sent(api: Api) -> None:
    page = (await api.as_key(None).get("/docs")).body.decode()
    assert "id,email,First Name,city\r\nc1," in page
    assert "\\r\\n" not in page
    assert "default false" in page
    assert '<a href="#schema-ContactItem">ContactItem</a>' in page


async def test_the_root_leads_a_browser_to_the_page_and_a_program_to_the_document(api: Api) -> None:
    nobody = api.as_key(None)
    async with api.session.get(api.url + "/", headers={"Accept": "text/html,*/*;q=0.8"}) as answer:
        assert (answer.status, answer.url.path) == (200, "/console")
    pointers = (await nobody.get("/")).json()
    assert (pointers["documentation"], pointers["openapi"]) == ("/docs", "/openapi.json")
    assert pointers["console"] == "/console"
    assert (await nobody.get("/favicon.ico")).status == 204
    lost = await nobody.get("/consoles")
    assert lost.status == 404
    assert "/docs" in lost.json()["detail"]


async def test_the_type_of_a_problem_leads_to_its_meaning(api: Api) -> None:
    nobody = api.as_key(None)
    refused = (await nobody.get("/v1/jobs")).json()
    path, _, anchor = refused["type"].partition("#")
    page = await nobody.get(path, {"Accept": "text/html"})
    assert (page.status, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    (section,) = [part for part in page.body.decode().split("<h2 ") if part.startswith(f"id={anchor}>")]
    assert refused["title"] in section
    assert "Authorization: Bearer" in section


def test_every_problem_says_what_it_means_and_what_to_do() -> None:
    for code, kind in problems.KINDS.items():
        meaning = problems.MEANINGS[code]
        assert len(meaning) > max(50, len(kind.title)), code
        assert meaning.endswith(".") or "`" in meaning, code
        shared = problems.SHARED_TYPES.get(kind.status)
        assert problems.describe(code, "", "").type == (shared or f"{problems.PAGE}#{problems.anchor(code)}")
