"""`POST /v1/contacts:bulk` as the contract says it."""

from __future__ import annotations

from tests.http.conftest import Api, person


async def test_each_item_has_its_own_outcome(api: Api) -> None:
    answer = await api.push([person(1), {"id": "c2", "email": "nobody"}, person(3)], key="k1")
    assert answer.status == 207
    body = answer.json()
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Location"] == body["status_url"] == f"/v1/jobs/{body['job_id']}"
    assert answer.headers["Idempotency-Key"] == "k1"
    assert body["summary"] == {"total": 3, "succeeded": 2, "failed": 1, "retry": 0}
    assert body["effects"] == {"db": "ok"}
    assert body["items"][0] == {"index": 0, "id": "c1", "status": "ok", "result": "created", "version": 1}
    assert body["items"][1]["error_code"] == "INVALID_EMAIL"
    assert body["items"][1]["errors"][0]["pointer"] == "/email"

    job = await api.get(body["status_url"])
    assert job.status == 200
    assert job.json()["state"] == "completed_with_failures"
    health = await api.get("/health")
    assert health.status == 207
