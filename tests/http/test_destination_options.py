"""Options of a destination over HTTP: kept as given if they can be used, refused by name if not."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.http.conftest import Api

NEW = {"name": "crm", "base_url": "https://crm.example", "token": "s3cret-token"}
GOOD: dict[str, dict[str, Any]] = {
    "hubspot": {"batch_size": 50, "properties": {"Plan": "tier"}, "time_zone": "Europe/Berlin"},
    "salesforce": {"api_version": "61.0", "fields": {"company": None}, "rate": 5},
    "http": {"path": "/v1/people", "auth_header": "X-Api-Key", "auth_scheme": "", "idempotent": True},
}


@pytest.mark.parametrize("kind", GOOD)
async def test_a_destination_of_every_kind_is_added_with_its_options(api: Api, kind: str) -> None:
    body = msgspec.json.encode(NEW | {"kind": kind, "options": GOOD[kind]})
    added = await api.request("POST", "/v1/destinations", data=body)

    assert added.status == 201, added.body
    assert (added.json()["kind"], added.json()["options"]) == (kind, GOOD[kind])


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("hubspot", {"propertys": {}}, "options.propertys: hubspot has no such option; there are: "),
        ("salesforce", {"batch_size": 500}, "options.batch_size: Expected `int` <= 200."),
        ("http", {"read_path": 5}, "options.read_path: Expected `str | null`, got `int`."),
        ("http", {"fields": {"email": "id"}}, "'email' cannot go to 'id'"),
    ],
)
async def test_a_wrong_option_is_a_400_that_names_it(
    api: Api, kind: str, options: dict[str, Any], words: str
) -> None:
    body = msgspec.json.encode(NEW | {"kind": kind, "options": options})
    refused = await api.request("POST", "/v1/destinations", data=body)

    assert (refused.status, refused.json()["code"]) == (400, "INVALID_PARAMETER")
    assert words in refused.json()["detail"]
    assert (await api.get("/v1/destinations")).json()["destinations"] == []
