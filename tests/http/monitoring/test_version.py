"""`GET /v1/version`, and what an operation has of its declaration alone."""

from __future__ import annotations

from importlib.metadata import version

from tests.http.conftest import Api


async def test_the_release_is_shown_to_the_holder_of_a_key(api: Api) -> None:
    answer = await api.get("/v1/version")
    assert (answer.status, answer.json()) == (200, {"version": version("tranche")})
    assert (await api.as_key(None).get("/v1/version")).status == 401


async def test_a_declaration_alone_refuses_what_it_does_not_declare(api: Api) -> None:
    assert (await api.get("/v1/version?verbose=1")).json()["code"] == "INVALID_PARAMETER"
    assert (await api.get("/v1/version", {"Accept": "text/csv"})).status == 406
    wrong = await api.request("POST", "/v1/version")
    assert (wrong.status, wrong.headers["Allow"]) == (405, "GET, HEAD, OPTIONS")
    assert (await api.request("HEAD", "/v1/version")).status == 200
