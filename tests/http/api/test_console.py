"""The console as it is served."""

from __future__ import annotations

import gzip

from tests.http.conftest import Api


async def test_files_have_a_policy_and_an_etag(api: Api) -> None:
    nobody = api.as_key(None)
    for path in ("/console", "/console/main.js", "/console/jobs/01a2?x=y"):
        answer = await nobody.get(path, {"Accept-Encoding": "identity"})
        assert answer.status == 200
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "require-trusted-types-for 'script'" in policy
        again = await nobody.get(path, {"If-None-Match": answer.headers["ETag"]})
        assert (again.status, again.body) == (304, b"")
    packed = await nobody.get("/console/style.css", {"Accept-Encoding": "gzip"})
    plain = await nobody.get("/console/style.css", {"Accept-Encoding": "identity"})
    assert plain.headers["Vary"] == "Accept-Encoding"
    content = packed.body if packed.body == plain.body else gzip.decompress(packed.body)
    assert content == plain.body
    assert (await nobody.get("/console/nothing.js")).status == 404
    assert (await nobody.get("/console/..%2f..%2fapi.py")).status in (200, 404)
