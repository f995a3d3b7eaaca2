"""An item that deletes its record."""

from __future__ import annotations

from tests.http.conftest import Api, person


async def test_a_deleted_record_is_a_tombstone_with_a_history(api: Api) -> None:
    await api.push([person(1, phone="1"), person(2)])
    answer = (await api.push([{"id": "c1", "deleted": True}, {"id": "c2", "deleted": False, "email": "a@b.co"}])).json()
    assert [(item["result"], item["version"]) for item in answer["items"]] == [("deleted", 2), ("updated", 2)]
    gone = await api.get("/v1/contacts/c1")
    assert (gone.status, answer["job_id"] in gone.json()["detail"]) == (404, True)
    versions = (await api.get("/v1/contacts/c1/history")).json()["versions"]
    assert [(v["version"], v["deleted"], v["after"] and v["after"]["phone"]) for v in versions] == [
        (2, True, None), (1, False, "1"),
    ]  # fmt: skip
    job = (await api.get(f"/v1/jobs/{answer['job_id']}")).json()
    assert job["results"] == {"deleted": 1, "updated": 1}


async def test_a_second_deletion_changes_nothing_and_an_import_creates_anew(api: Api) -> None:
    await api.push([person(1, phone="1", attributes={"plan": "gold"})])
    await api.push([{"id": "c1", "deleted": True}])
    (again,) = (await api.push([{"id": "c1", "deleted": True, "first_name": "ignored"}])).json()["items"]
    assert (again["result"], again["version"]) == ("unchanged", 2)
    (anew,) = (await api.push([person(1)])).json()["items"]
    assert (anew["result"], anew["version"]) == ("updated", 3)
    found = (await api.get("/v1/contacts/c1")).json()
    assert (found["phone"], found["attributes"], found["first_name"]) == (None, {}, "Name 1")


async def test_undo_brings_a_deleted_record_back(api: Api) -> None:
    await api.push([person(1, phone="1", attributes={"plan": "gold"})])
    before = (await api.get("/v1/contacts/c1")).json()
    assert (await api.push([{"id": "c1", "deleted": True}])).json()["summary"]["succeeded"] == 1
    history = (await api.get("/v1/contacts/c1/history")).json()["versions"]
    assert history[0]["before"]["phone"] == before["phone"]


async def test_expectations_hold_for_deletions_as_well(api: Api) -> None:
    await api.push([person(1, source_version=5), person(2)])
    items = [
        {"id": "c1", "deleted": True, "source_version": 4},
        {"id": "c2", "deleted": True, "if_version": 7},
        {"id": "new", "deleted": True, "source_version": 9},
        {"id": "c3", "deleted": "yes"},
        {"deleted": True},
    ]
    answer = (await api.push(items)).json()["items"]
    assert [item.get("result") or item["error_code"] for item in answer] == [
        "superseded", "VERSION_CONFLICT", "deleted", "INVALID_FIELD", "MISSING_FIELD",
    ]  # fmt: skip
    assert (await api.push([person(0, id="new", source_version=8)])).json()["items"][0]["result"] == "superseded"
    assert (await api.get("/v1/contacts/new")).status == 404


async def test_deletions_in_files_and_twice_in_a_batch(api: Api) -> None:
    await api.push([person(n) for n in range(4)])
    body = b"id,deleted\r\nc0,true\r\nc1,ja\r\nc2,no\r\nc3,perhaps\r\n"
    answer = (await api.push(body, headers={"Content-Type": "text/csv"})).json()["items"]
    assert [item.get("result") or item["errors"][0]["pointer"] for item in answer] == [
        "deleted", "deleted", "/email", "/deleted",
    ]  # fmt: skip
    twice = [{"id": "c2", "deleted": True}, {"id": "c2", "deleted": True}, {"id": "c3", "deleted": True}, person(3)]
    answer = (await api.push(twice)).json()["items"]
    assert [item.get("error_code") or item["result"] for item in answer] == [
        "deleted", "deleted", "DUPLICATE_IN_BATCH", "DUPLICATE_IN_BATCH",
    ]  # fmt: skip


async def test_a_dry_run_and_an_aborted_batch_delete_nothing(api: Api) -> None:
    await api.push([person(1)])
    assert (await api.push([{"id": "c1", "deleted": True}], query="?dry_run=true")).json()["items"][0][
        "result"
    ] == "deleted"
    await api.push([{"id": "c1", "deleted": True}, {"id": "x"}], query="?atomic=true")
    assert (await api.get("/v1/contacts/c1")).json()["version"] == 1
