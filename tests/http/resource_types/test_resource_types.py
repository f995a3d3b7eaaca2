"""A tenant declares a type, and imports records of it like any other."""

from __future__ import annotations

from typing import Any

import asyncpg
import msgspec
import pytest

from app.auth import service as auth_service
from tests.http.conftest import Answer, Api


@pytest.fixture
async def other(db: asyncpg.Connection[Any], api: Api) -> Api:
    """Another tenant."""
    await auth_service.ensure_tenant(db, "other")
    return api.as_key(await auth_service.create_key(db, "other", ["import", "read", "admin"]))


PRODUCTS: dict[str, Any] = {
    "singular": "product",
    "schema": {
        "type": "object",
        "properties": {
            "title": {"type": "string", "minLength": 2, "maxLength": 20},
            "sku": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]+$"},
            "price": {"type": "number", "minimum": 0},
            "stock": {"type": "integer", "minimum": 0, "maximum": 1000},
            "active": {"type": "boolean"},
            "color": {"enum": ["red", "green"]},
            "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 3},
            "released": {"type": "string", "format": "date"},
            "seen_at": {"type": "string", "format": "date-time"},
            "page": {"type": "string", "format": "uri"},
            "contact": {"type": "string", "format": "email"},
        },
        "required": ["title"],
    },
    "aliases": {"title": ["Product Name"]},
    "attributes": False,
}
WHOLE: dict[str, Any] = {
    "id": "p1",
    "title": "Lamp",
    "sku": "AB-12",
    "price": 9.5,
    "stock": 3,
    "active": True,
    "color": "red",
    "tags": ["a", "b"],
    "released": "2026-03-31",
    "seen_at": "2026-03-31T12:00:00+02:00",
    "page": "https://shop.example/lamp?x=1",
    "contact": "ada@example.org",
}


async def declare(api: Api, name: str, definition: dict[str, Any]) -> Answer:
    headers = {"Content-Type": "application/json"}
    return await api.request("PUT", f"/v1/resource-types/{name}", headers=headers, data=msgspec.json.encode(definition))


async def push(api: Api, name: str, items: Any, *, key: str = "k", query: str = "", media: str = "json") -> Answer:
    body = items if isinstance(items, bytes) else msgspec.json.encode({"items": items})
    media_type = {"json": "application/json", "csv": "text/csv"}[media]
    headers = {"Idempotency-Key": key, "Content-Type": media_type}
    return await api.request("POST", f"/v1/{name}:bulk{query}", headers=headers, data=body)


def with_field(name: str, schema: Any, **changes: Any) -> dict[str, Any]:
    schema = {**PRODUCTS["schema"], "properties": {**PRODUCTS["schema"]["properties"], name: schema}}
    return {**PRODUCTS, "schema": schema, **changes}


async def test_records_of_a_declared_type_are_imported_and_read(api: Api) -> None:
    made = await declare(api, "products", PRODUCTS)
    assert (made.status, made.json()["version"], made.json()["built_in"]) == (201, 1, False)
    answer = await push(api, "products", [WHOLE, {"id": "p2", "title": "Chair"}])
    assert answer.status == 207
    assert [item["result"] for item in answer.json()["items"]] == ["created", "created"]
    job = (await api.get(answer.headers["Location"])).json()
    assert job["type"] == "products"
    found = (await api.get("/v1/products/p1")).json()
    assert {name: found[name] for name in WHOLE} == WHOLE
    assert "attributes" not in found
    assert (await api.get("/v1/products/p2")).json()["price"] is None
    assert (await api.get("/v1/contacts/p1")).status == 404
    again = await push(api, "products", [WHOLE | {"stock": 4}], key="k2")
    assert again.json()["items"][0] | {"line": None} == {
        "index": 0, "id": "p1", "status": "ok", "result": "updated", "version": 2, "line": None,
    }  # fmt: skip
    versions = (await api.get("/v1/products/p1/history")).json()["versions"]
    assert [version["after"]["stock"] for version in versions] == [4, 3]
    assert [job["type"] for job in (await api.get("/v1/jobs?type=products")).json()["jobs"]] == ["products"] * 2
    assert (await api.get("/v1/jobs?type=contacts")).json()["jobs"] == []


@pytest.mark.parametrize(
    ("wrong", "pointer", "words"),
    [
        ({"title": "x"}, "/title", "has 1 characters; 2 to 20 are allowed"),
        ({"title": None}, "/title", "title is required, but it is null; send it"),
        ({"sku": "ab-12"}, "/sku", 'sku "ab-12" does not match the pattern ^[A-Z]{2}-[0-9]+$'),
        ({"price": "9.5"}, "/price", 'price must be a number, not the text "9.5"; send it without quotes'),
        ({"price": -1}, "/price", "price must be at least 0, not -1"),
        ({"stock": 1.5}, "/stock", "must be a whole number, written without fraction and exponent"),
        ({"stock": 1001}, "/stock", "must be at most 1000"),
        ({"active": 1}, "/active", "active must be true or false, not 1"),
        ({"color": "blue"}, "/color", 'color cannot be the text "blue"; its values are red, green'),
        ({"tags": "a"}, "/tags", "tags must be an array, not a string"),
        ({"tags": ["a", 1]}, "/tags/1", "tags[1] must be a string, not a number"),
        ({"tags": ["a"] * 4}, "/tags", "tags has 4 values; at most 3 are allowed"),
        ({"released": "31.03.2026"}, "/released", 'released "31.03.2026" is not a date; write it like 2026-03-31,'),
        ({"seen_at": "2026-03-31T12:00:00"}, "/seen_at", "is not a date and time with its offset"),
        ({"page": "shop.example"}, "/page", "is not a URI"),
        ({"contact": "nobody"}, "/contact", "is not an e-mail address"),
        ({"attributes": {}}, "/attributes", '"attributes" is not a field; a product has no such field'),
        ({"colour": "red"}, "/colour", '"colour" is not a field; did you mean "color"?'),
    ],
    ids=str,
)
async def test_each_rule_is_told_in_the_words_used_for_contacts(
    api: Api, wrong: dict[str, Any], pointer: str, words: str
) -> None:
    await declare(api, "products", PRODUCTS)
    (item,) = (await push(api, "products", [WHOLE | wrong])).json()["items"]
    assert item["status"] == "failed"
    ((found, detail),) = [(error["pointer"], error["detail"]) for error in item["errors"]]
    assert found == pointer
    assert words in detail


async def test_all_faults_of_an_item_are_told_at_once(api: Api) -> None:
    await declare(api, "products", PRODUCTS)
    (item,) = (await push(api, "products", [{"id": "p", "price": "x", "stock": -1, "tags": [1, 2]}])).json()["items"]
    assert [error["pointer"] for error in item["errors"]] == ["/price", "/stock", "/tags/0", "/tags/1", "/title"]


async def test_cells_become_values_of_their_type(api: Api) -> None:
    """By what the request says of numbers and dates; columns are known by the aliases of the type."""
    await declare(api, "products", PRODUCTS)
    body = (
        "id;Product Name;price;stock;active;tags;released\r\np1;Lamp;1.234,50;1.000;ja;a; b;31.3.2026\r\n".replace(
            "a; b", '"a; b"'
        )
        + 'p2;Chair;2,5;7;nein;"[""x""]";\r\n'
    )
    answer = await push(api, "products", body.encode(), query="?decimal=,&date_format=DD.MM.YYYY", media="csv")
    assert [item.get("errors") for item in answer.json()["items"]] == [None, None]
    found = (await api.get("/v1/products/p1")).json()
    names = ("title", "price", "stock", "active", "tags", "released")
    assert [found[name] for name in names] == ["Lamp", 1234.5, 1000, True, ["a", "b"], "2026-03-31"]
    found = (await api.get("/v1/products/p2")).json()
    assert [found[name] for name in names] == ["Chair", 2.5, 7, False, ["x"], None]


async def test_a_number_that_can_be_read_in_two_ways_is_not_guessed(api: Api) -> None:
    await declare(api, "products", PRODUCTS)
    answer = await push(api, "products", b'id,title,price\r\np1,Lamp,"1,234"\r\n', media="csv")
    (error,) = answer.json()["items"][0]["errors"]
    assert error["pointer"] == "/price"
    assert "decimal=" in error["detail"]
    failed = await api.get(answer.json()["items_url"] + "?status=failed", {"Accept": "text/csv"})
    again = await push(api, "products", b"1234".join(failed.body.rsplit(b'"1,234"', 1)), key="k2", media="csv")
    assert again.json()["summary"]["succeeded"] == 1


async def test_an_option_for_cells_is_refused_where_there_are_none(api: Api) -> None:
    assert (await push(api, "contacts", [], query="?decimal=,")).status == 400
    wrong = await push(api, "contacts", b"id,email\n", query="?date_format=DD.MM", media="csv")
    assert (wrong.status, "names YYYY, MM and DD" in wrong.json()["detail"]) == (400, True)


async def test_columns_without_a_field_are_refused_where_there_are_no_attributes(api: Api) -> None:
    await declare(api, "products", PRODUCTS)
    answer = await push(api, "products", b"id,title,weight\r\np1,Lamp,3\r\n", media="csv")
    assert (answer.status, answer.json()["code"]) == (400, "INVALID_HEADER")
    assert "'weight'" in answer.json()["detail"]
    left_out = await push(api, "products", b"id,title,weight\r\np1,Lamp,3\r\n", query="?ignore=weight", media="csv")
    assert left_out.json()["summary"]["succeeded"] == 1


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ({"type": "string", "const": "x"}, "/schema/properties/extra/const"),
        ({"type": ["string", "null"]}, "/schema/properties/extra/type"),
        ({"type": "object"}, "/schema/properties/extra/type"),
        ({"type": "string", "format": "hostname"}, "/schema/properties/extra/format"),
        ({"type": "string", "pattern": "(a)\\1"}, "/schema/properties/extra/pattern"),
        ({"type": "string", "pattern": "(?=a)"}, "/schema/properties/extra/pattern"),
        ({"type": "string", "maxLength": -1}, "/schema/properties/extra/maxLength"),
        ({"type": "integer", "minimum": 5, "maximum": 4}, "/schema/properties/extra/maximum"),
        ({"type": "integer", "enum": ["x"]}, "/schema/properties/extra/enum"),
        ({"type": "array", "items": {"type": "array"}}, "/schema/properties/extra/items"),
        ({"$ref": "#/x"}, "/schema/properties/extra/type"),
        ("string", "/schema/properties/extra"),
    ],
    ids=str,
)
async def test_what_is_not_supported_is_refused_with_its_place(api: Api, schema: Any, place: str) -> None:
    answer = await declare(api, "products", with_field("extra", schema))
    assert (answer.status, answer.json()["detail"].partition(":")[0]) == (400, place), answer.json()


@pytest.mark.parametrize("name", ["jobs", "Products", "a b", "resource-types"])
async def test_a_name_that_cannot_be_a_path_is_refused(api: Api, name: str) -> None:
    assert (await declare(api, name.replace(" ", "%20"), PRODUCTS)).status in (400, 404)


@pytest.mark.parametrize(
    "changed",
    [
        with_field("title", {"type": "string", "minLength": 3, "maxLength": 20}),
        with_field("title", {"type": "string", "minLength": 2, "maxLength": 19}),
        with_field("sku", {"type": "string", "pattern": "x"}),
        with_field("price", {"type": "integer", "minimum": 0}),
        with_field("stock", {"type": "integer", "minimum": 1, "maximum": 1000}),
        with_field("color", {"enum": ["red"]}),
        with_field("tags", {"type": "array", "items": {"type": "string"}, "maxItems": 2}),
        {**PRODUCTS, "schema": {**PRODUCTS["schema"], "required": ["title", "sku"]}},
        {**PRODUCTS, "schema": {**PRODUCTS["schema"], "properties": {"title": {"type": "string"}}}},
        {
            **with_field("new", {"type": "string"}),
            "schema": {**with_field("new", {"type": "string"})["schema"], "required": ["title", "new"]},
        },
    ],
    ids=str,
)
async def test_what_could_make_stored_records_invalid_is_refused(api: Api, changed: dict[str, Any]) -> None:
    await declare(api, "products", PRODUCTS)
    answer = await declare(api, "products", changed)
    assert (answer.status, answer.json()["code"]) == (409, "CONFLICT")
    assert "declare a new type" in answer.json()["detail"]
    assert (await api.get("/v1/resource-types/products")).json()["version"] == 1


async def test_a_looser_type_counts_from_the_next_request_on(api: Api) -> None:
    """Also in this process, which knows the version before."""
    await declare(api, "products", PRODUCTS)
    item = WHOLE | {"weight": 3, "title": "x" * 25}
    assert (await push(api, "products", [item])).json()["summary"]["failed"] == 1
    looser = with_field("weight", {"type": "number"})
    looser["schema"]["properties"]["title"] = {"type": "string", "minLength": 2}
    changed = await declare(api, "products", looser)
    assert (changed.status, changed.json()["version"]) == (200, 2)
    assert (await push(api, "products", [item], key="k2")).json()["summary"]["succeeded"] == 1
    same = await declare(api, "products", looser)
    assert (same.status, same.json()["version"]) == (200, 2)


async def test_a_built_in_type_gets_fields_of_the_tenants_own(api: Api) -> None:
    tier = {"schema": {"properties": {"tier": {"enum": ["gold", "silver"]}}}, "aliases": {"tier": ["Stufe"]}}
    assert (await push(api, "contacts", [{"id": "c", "email": "a@b.co", "tier": "gold"}])).json()["summary"]["failed"]
    made = await declare(api, "contacts", tier)
    assert (made.status, made.json()["built_in"], list(made.json()["schema"]["properties"])) == (201, True, ["tier"])
    body = b"id,email,Stufe\r\nc,a@b.co,gold\r\nd,a@b.co,bronze\r\n"
    answer = (await push(api, "contacts", body, key="k2", media="csv")).json()
    assert [item["status"] for item in answer["items"]] == ["ok", "failed"]
    assert (await api.get("/v1/contacts/c")).json()["tier"] == "gold"
    required = {"schema": {**tier["schema"], "required": ["tier"]}}
    assert (await declare(api, "contacts", required)).status == 400
    assert (await declare(api, "contacts", {"schema": {"properties": {"email": {"type": "string"}}}})).status == 400


async def test_types_are_listed_and_described_to_their_tenant_alone(api: Api, other: Api) -> None:
    await declare(api, "products", PRODUCTS)
    names = [one["name"] for one in (await api.get("/v1/resource-types")).json()["resource_types"]]
    assert names == ["companies", "contacts", "products"]
    paths = (await api.get("/openapi.json")).json()["paths"]
    assert {"/v1/products:bulk", "/v1/companies:bulk", "/v1/products/{record_id}"} <= paths.keys()
    assert "/v1/products:bulk" not in (await api.as_key(None).get("/openapi.json")).json()["paths"]
    assert "/v1/products:bulk" not in (await other.get("/openapi.json")).json()["paths"]
    assert (await other.get("/v1/resource-types/products")).status == 404
    assert (await push(other, "products", [WHOLE])).status == 404
    assert (await other.get("/v1/products/p1")).status == 404


async def test_whoever_imports_can_read_what_columns_are_called(api: Api, db: asyncpg.Connection[Any]) -> None:
    await declare(api, "products", PRODUCTS)
    importer = api.as_key(await auth_service.create_key(db, "acme", ["import"]))
    types = {one["name"]: one for one in (await importer.get("/v1/resource-types")).json()["resource_types"]}
    assert types["products"]["headers"]["title"] == ["title", "product name"]
    assert "kundennummer" in types["contacts"]["headers"]["id"]
    assert "vorname" in types["contacts"]["headers"]["first_name"]
    assert (await declare(importer, "more", PRODUCTS)).status == 403


async def test_the_same_id_in_two_types_is_two_records(api: Api) -> None:
    await push(api, "contacts", [{"id": "x", "email": "a@b.co"}])
    await push(api, "companies", [{"id": "x", "name": "Acme", "country": "GB", "employees": 3}])
    assert (await api.get("/v1/contacts/x")).json()["email"] == "a@b.co"
    found = (await api.get("/v1/companies/x")).json()
    assert (found["name"], found["version"], found["employees"]) == ("Acme", 1, 3)
    again = await push(api, "companies", [{"id": "x", "name": "Acme"}])
    assert again.json()["code"] == "IDEMPOTENCY_KEY_REUSED"


async def test_at_most_a_hundred_types(api: Api, db: Any) -> None:
    await declare(api, "products", PRODUCTS)
    await db.execute(
        """INSERT INTO resource_types (tenant_id, type_id, name, definition)
        SELECT tenant_id, type_id + n, name || n, definition FROM resource_types, generate_series(1, 99) n"""
    )
    answer = await declare(api, "more", PRODUCTS)
    assert (answer.status, answer.json()["code"]) == (409, "CONFLICT")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"path": "goods"}, "path"),
        ({"speed": 1}, "options.speed"),
        ({"nulls": "perhaps"}, "nulls"),
        ({"match_on": "colour"}, "options.match_on: there is no text 'colour' to look for; there are: "),
    ],
)
async def test_options_of_a_destination_are_checked(api: Api, options: dict[str, Any], words: str) -> None:
    refused = await declare(api, "products", PRODUCTS | {"destinations": {"shop/1": options}})
    assert (refused.status, refused.json()["code"]) == (400, "INVALID_PARAMETER")
    assert refused.json()["detail"].startswith("/destinations/shop~11: ")
    assert words in refused.json()["detail"]


async def test_a_destination_without_a_place_for_the_type_is_refused(api: Api) -> None:
    new = {"name": "hubspot", "kind": "hubspot", "base_url": "http://127.0.0.1:9", "token": "t"}
    assert (await api.request("POST", "/v1/destinations", data=msgspec.json.encode(new))).status == 201
    refused = await declare(api, "products", PRODUCTS | {"destinations": {"hubspot": {}}})
    assert (refused.status, "hubspot is a hubspot, which has no place" in refused.json()["detail"]) == (400, True)
    assert (await declare(api, "companies", {"schema": {}, "destinations": {"hubspot": {}}})).status == 201


async def test_types_of_one_destination_do_not_share_a_path(api: Api) -> None:
    """A record that is archived would be one of another type with the same id."""
    new = {"name": "shop", "kind": "http", "base_url": "http://127.0.0.1:9", "token": "t"}
    new |= {"options": {"archive_path": "/gone"}, "types": ["contacts", "products"]}
    refused = await api.request("POST", "/v1/destinations", data=msgspec.json.encode(new))
    assert (refused.status, "cannot share the archive_path '/gone'" in refused.json()["detail"]) == (400, True)
    one = await api.request("POST", "/v1/destinations", data=msgspec.json.encode(new | {"types": ["products"]}))
    assert (one.status, one.json()["types"]) == (201, ["products"])
    change = {"types": ["contacts", "products"]}
    assert (await api.request("PATCH", "/v1/destinations/shop", data=msgspec.json.encode(change))).status == 400
    change |= {"options": {"archive_path": "/gone/{type}"}}
    assert (await api.request("PATCH", "/v1/destinations/shop", data=msgspec.json.encode(change))).status == 200


async def test_fields_keep_the_order_in_which_they_were_declared(api: Api) -> None:
    await declare(api, "products", PRODUCTS)
    found = (await api.get("/v1/resource-types/products")).json()
    assert list(found["fields"]) == list(found["schema"]["properties"]) == list(PRODUCTS["schema"]["properties"])
