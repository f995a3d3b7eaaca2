"""Every answer, whatever it is of, says to browsers and caches what they must not do with it."""

from __future__ import annotations

import pytest

from app.http.security_headers import shield
from tests.http.conftest import Api, person

PATHS = (
    "/v1/jobs",
    "/v1/destinations",
    "/v1/dead-letters",
    "/v1/webhook-endpoints",
    "/v1/audit-log",
    "/v1/contacts/c1",
    "/v1/contacts/nobody",
    "/health",
    "/health/live",
    "/metrics",
    "/docs",
    "/docs/problems",
    "/openapi.json",
    "/nowhere",
)
PUBLIC = ("/docs", "/docs/problems")
"""What everybody may keep; /openapi.json with a key holds the types of the key's tenant."""


async def test_every_answer_carries_them(api: Api) -> None:
    pushed = await api.push([person(1)])
    assert pushed.status == 207
    answers = {path: await api.get(path) for path in PATHS}
    answers |= {
        "POST": pushed,
        "HEAD": await api.request("HEAD", "/v1/jobs"),
        "DELETE": await api.request("DELETE", "/v1/jobs"),
        "OPTIONS": await api.request("OPTIONS", "/v1/jobs"),
        "no key": await api.as_key(None).get("/v1/jobs"),
        "bad body": await api.push(b"{"),
    }
    for name, answer in answers.items():
        fields = answer.headers
        assert fields["X-Content-Type-Options"] == "nosniff", name
        assert fields["Referrer-Policy"] == "no-referrer", name
        assert "frame-ancestors 'none'" in fields["Content-Security-Policy"], name
        assert "default-src 'none'" in fields["Content-Security-Policy"], name
        assert fields["X-Frame-Options"] == "DENY", name
        assert fields.getall("Server") == ["tranche"], name
        assert "Strict-Transport-Security" not in fields, "this connection is not encrypted"
        (cache,) = fields.getall("Cache-Control")
        assert ("public" in cache) if name in PUBLIC else ("no-store" in cache or "private" in cache), name


@pytest.mark.parametrize("name", [b"cache-control", b"content-security-policy"])
def test_what_a_handler_says_counts(name: bytes) -> None:
    assert [value for found, value in shield([(name, b"x")], "http") if found == name] == [b"x"]
