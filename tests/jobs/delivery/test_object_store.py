"""Records on their whole way into files of a bucket, and out of them again as docs/destinations-object.md says."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from app.destinations import service
from app.destinations.credentials import BasicCredentials
from app.destinations.testing.rules import Verdict
from app.errors import Invalid
from app.kit.encryption import Vault
from jobs.worker import working
from tests.conftest import LOOPBACK
from tests.contract.object_store import POLICY, ObjectCase, account, open_object_store, read_lines
from tests.jobs.conftest import World, people
from tests.jobs.delivery.test_destination_tester import run
from tests.jobs.delivery.test_syncs import sync
from tests.jobs.sagas.test_undo import ask

PAGE = (Path(__file__).parents[3] / "docs" / "destinations-object.md").read_text()
[LOADER] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
async def store() -> AsyncIterator[ObjectCase]:
    async with aiohttp.ClientSession() as session, open_object_store(session) as store:
        yield store


async def add(world: World, store: ObjectCase, **options: Any) -> None:
    """In place of the destination that every world has."""
    new = service.NewDestination(
        name="crm",
        kind="object",
        base_url=store.url,
        credentials=BasicCredentials(username=store.access_key, password=store.secret),
        options={"bucket": store.bucket} | options,
    )
    async with world.database.connection() as connection:
        await service.set_destination_state(connection, world.tenant_id, "hubspot", "removed")
        await service.add_destination(
            connection, Vault(world.settings.secret_key), world.tenant_id, new, private=LOOPBACK
        )


class Loader:
    """Whoever loads the files, by the code of the page."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._database = sqlite3.connect(":memory:")
        self._code: dict[str, Any] = {}
        exec(LOADER, self._code)

    def load(self, store: ObjectCase) -> int:
        """How many files were new."""
        for key, body in store.stored().items():
            copy = self._folder / key
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(body)
        count: int = self._code["load"](self._folder / "contacts", self._database)
        return count

    def rows(self) -> dict[str, tuple[int, str | None]]:
        """Version and company of those that are not deleted."""
        found = self._database.execute("SELECT id, version, company FROM contacts WHERE NOT deleted")
        return {key: (version, company) for key, version, company in found}


@pytest.fixture
def loader(tmp_path: Path) -> Loader:
    return Loader(tmp_path)


def files_of(store: ObjectCase) -> dict[str, list[dict[str, Any]]]:
    return {key: lines for key, body in store.stored().items() if (lines := read_lines(key, body)) is not None}


async def until_called(store: ObjectCase, count: int) -> None:
    async with asyncio.timeout(30):
        while len(await store.calls()) < count:
            await asyncio.sleep(0.02)


async def test_an_import_is_one_file_with_its_manifest(world: World, store: ObjectCase, loader: Loader) -> None:
    await add(world, store)
    async with working(world.settings):
        answer = await world.push(people(1000, company="Zuse KG", attributes={"plan": "gold"}))
        assert await world.finished(answer.job_id) == "completed"
    stored = store.stored()
    assert len(stored) == 2
    [(key, lines)] = files_of(store).items()
    assert {line["id"] for line in lines} == {f"c{i:05}" for i in range(1000)}
    assert lines[0] == {
        "id": "c00000", "version": 1, "type": "contacts", "deleted": False, "company": "Zuse KG",
        "email": "c00000@example.com", "attributes": {"plan": "gold"},
    }  # fmt: skip
    [manifest] = [json.loads(body) for name, body in stored.items() if "/_manifests/" in name]
    assert (manifest["file"], manifest["records"], manifest["bytes"]) == (key, 1000, len(stored[key]))
    assert dict(zip(manifest["ids"], manifest["versions"], strict=True)) == {line["id"]: 1 for line in lines}
    assert loader.load(store) == 1
    assert len(loader.rows()) == 1000
    assert loader.load(store) == 0


@pytest.mark.parametrize("fault", ["accept_then_drop", "drop_before"])
@pytest.mark.parametrize("after", [0, 1], ids=["file", "manifest"])
async def test_a_lost_answer_leaves_one_file(
    world: World, store: ObjectCase, loader: Loader, fault: str, after: int
) -> None:
    await add(world, store)
    world.settings = msgspec.structs.replace(world.settings, reconcile_grace=0.2)
    store.moto.lose(fault, after)
    async with working(world.settings):
        answer = await world.push(people(50))
        assert await world.finished(answer.job_id) == "completed"
    calls = await store.calls(manifests=True)
    assert len(calls) == 3 + after, "the file, its manifest, and what was lost"
    assert len({call["path"] for call in calls}) == 2
    assert len(store.stored()) == 2
    loader.load(store)
    assert len(loader.rows()) == 50


async def test_a_batch_that_cannot_come_again_as_it_was_is_no_reason_to_look(
    world: World, store: ObjectCase, loader: Loader
) -> None:
    """One record changes while the others of its batch are in doubt: all arrive, and a loader has each once."""
    await add(world, store)
    world.settings = msgspec.structs.replace(world.settings, reconcile_grace=2.0)
    await store.faults(accept_then_drop={"times": 1})
    async with working(world.settings):
        first = await world.push(people(5, company="Old"))
        await until_called(store, 1)
        second = await world.push(people(1, company="New"))
        assert await world.finished(second.job_id) == "completed"
        assert await world.finished(first.job_id) == "completed"
    assert await world.rows("SELECT * FROM dead_letters") == []
    versions = [(line["id"], line["version"]) for lines in files_of(store).values() for line in lines]
    assert len(versions) > len(set(versions)), "this test is about a version that is in two files"
    loader.load(store)
    assert loader.rows() == {f"c{i:05}": (1, "Old") for i in range(1, 5)} | {"c00000": (2, "New")}


async def test_what_is_deleted_and_undone_is_so_in_the_files(world: World, store: ObjectCase, loader: Loader) -> None:
    await add(world, store)
    async with working(world.settings):
        first = await world.push(people(3, company="Old"))
        assert await world.finished(first.job_id) == "completed"
        changed = await world.push(people(1, company="New"))
        assert await world.finished(changed.job_id) == "completed"
        gone = await world.push([{"id": "c00002", "deleted": True}])
        assert await world.finished(gone.job_id) == "completed"
        await world.finished(await ask(world, changed.job_id))
        loader.load(store)
        assert loader.rows() == {"c00000": (3, "Old"), "c00001": (1, "Old")}
        await world.finished(await ask(world, first.job_id))
    loader.load(store)
    assert loader.rows() == {}


async def test_what_is_undone_while_it_is_in_doubt_is_not_left_there(
    world: World, store: ObjectCase, loader: Loader
) -> None:
    await add(world, store)
    world.settings = msgspec.structs.replace(world.settings, reconcile_grace=2.0)
    await store.faults(accept_then_drop={"times": 1})
    async with working(world.settings):
        first = await world.push(people(3))
        await until_called(store, 1)
        undone = await ask(world, first.job_id)
        await world.finished(undone)
        await world.finished(first.job_id)
    loader.load(store)
    assert loader.rows() == {}
    tombstones = [line["id"] for lines in files_of(store).values() for line in lines if line["deleted"]]
    assert sorted(set(tombstones)) == ["c00000", "c00001", "c00002"]


async def test_a_sync_makes_large_files(world: World, store: ObjectCase) -> None:
    async with working(world.settings):
        for start in range(0, 2000, 1000):
            answer = await world.push(people(1000, start))
            assert await world.finished(answer.job_id) == "completed"
        await add(world, store)
        assert await world.finished(await sync(world, name="crm")) == "completed"
    assert [len(lines) for lines in files_of(store).values()] == [2000]
    with pytest.raises(Invalid, match="cannot be read back"):
        await sync(world, name="crm", mode="verify")


async def test_a_missing_right_holds_the_destination_until_it_is_granted(world: World, store: ObjectCase) -> None:
    user = account().make_user(POLICY.replace("s3:PutObject", "s3:GetObject"))
    store.access_key, store.secret = user["AccessKeyId"], user["SecretAccessKey"]
    await add(world, store)
    async with working(world.settings):
        answer = await world.push(people(5))
        async with asyncio.timeout(30):
            while True:
                async with world.database.connection() as connection:
                    there = await service.list_destinations(connection, world.tenant_id)
                [found] = [each for each in there if each.name == "crm"]
                if "s3:PutObject" in (found.circuit.detail or found.detail or ""):
                    break
                await asyncio.sleep(0.05)
        account().allow(user, POLICY)
        assert await world.finished(answer.job_id) == "completed"
    assert [len(lines) for lines in files_of(store).values()] == [5]


async def test_a_canary_is_a_file_that_is_removed_again(world: World, store: ObjectCase) -> None:
    await add(world, store)
    found = await run(world)
    assert found.verdict is Verdict.WORKS, found.steps
    assert [(step.name, step.ok) for step in found.steps] == [("bucket", True), ("write", True), ("take away", True)]
    assert store.stored() == {}
