"""Whatever batches come, the one statement does what the contract says: checked against a model in Python."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from app.imports.service import Accepted207
from tests.db.conftest import Desk
from tests.db.imports.merge_model import TEXTS, Contact, Model, Told, canonical

_examples = itertools.count(1)
# Two plain ones, so that items are often equal, and what a careless encoding of columns would trip over.
_TEXT = st.sampled_from([None, "Ada", "Grace", "", "\x1f", "\x1e", 'NULL,"{}\\N\t\x1f\x1e'])
_VALUE = st.sampled_from([None, 1, True, "a", "", [], {"deep": None}])
_VERSION = st.sampled_from([None, 0, 1, 2, 3])
_OPTIONAL = {
    "first_name": _TEXT,
    "last_name": _TEXT,
    "company": _TEXT,
    "phone": st.sampled_from([None, "1", "(496)978-3969x58947"]),
    "attributes": st.none() | st.dictionaries(st.sampled_from("xyz"), _VALUE, min_size=1, max_size=3),
}
_ITEM = st.fixed_dictionaries(
    {"id": st.sampled_from("ab"), "email": st.sampled_from(["a@example.com", "b@example.com"])}, optional=_OPTIONAL
)


@st.composite
def _batches(draw: st.DrawFn) -> tuple[list[dict[str, Any]], dict[str, bool]]:
    items = []
    for item in draw(st.lists(_ITEM, min_size=2, max_size=5)):
        # Versions and faults are rarer than content, or nothing would ever change.
        match draw(st.integers(0, 9)):
            case 0 | 1:
                item["if_version"] = draw(_VERSION)
            case 2 | 3 | 4:
                item["source_version"] = draw(_VERSION)
            case 5:
                del item["email"]
            case 6 if items:
                item = dict(items[-1])
            case 7 | 8:
                item = {"id": item["id"], "deleted": True, "source_version": draw(_VERSION)}
        items.append(item)
    flags = {name: draw(st.integers(0, 5)) == 5 for name in ("atomic", "dry_run")}
    return items, flags | {"last_wins": draw(st.booleans())}


@hypothesis_settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    phases=(Phase.reuse, Phase.generate, Phase.shrink),  # explaining would take minutes
)
@given(batches=st.lists(_batches(), min_size=3, max_size=8))
async def test_batches_do_what_the_contract_says(
    desk: Desk, batches: list[tuple[list[dict[str, Any]], dict[str, bool]]]
) -> None:
    """Outcomes, versions, stored contacts, deliveries and the history agree with the model, batch after batch."""
    if not await desk.rows("SELECT FROM destinations"):
        await desk.add_destination("hubspot")
    # A prefix an example instead of a database an example: contacts of other examples are other contacts.
    prefix = f"e{next(_examples)}-"
    model = Model()
    for items, options in batches:
        items = [item | {"id": prefix + item["id"]} for item in items]
        answer = await desk.push(items, **options)
        expected, changed = model.run(answer.job_id, items, **options)
        assert _told(answer) == expected
        await _check_owed(desk, answer, changed)
        await _check_contacts(desk, prefix, model)
    await _check_history(desk, prefix, model)


def _told(answer: Accepted207) -> list[Told]:
    body = msgspec.json.decode(answer.body)
    statuses = [item["status"] for item in body["items"]]
    assert body["summary"] == {
        "total": len(statuses),
        "succeeded": statuses.count("ok"),
        "failed": statuses.count("failed"),
        "retry": 0,
    }
    assert [item["index"] for item in body["items"]] == list(range(len(statuses)))
    return [
        Told(
            i["status"],
            i["result"] if i["status"] == "ok" else i["error_code"],
            i.get("version"),
            i.get("duplicate_of"),
        )
        for i in body["items"]
    ]


async def _check_owed(desk: Desk, answer: Accepted207, changed: list[tuple[str, int, int]]) -> None:
    """A destination is owed exactly what changed, and an item that did nothing makes no delivery."""
    rows = await desk.rows(
        "SELECT record_ids, versions, indexes, states FROM deliveries WHERE tenant_id = $1 AND job_id = $2",
        desk.tenant_id,
        answer.job_id,
    )
    assert [owed for r in rows for owed in zip(r["record_ids"], r["versions"], r["indexes"], strict=True)] == changed
    assert "".join(r["states"] for r in rows) == "p" * len(changed)
    (job,) = await desk.rows(
        "SELECT state FROM jobs WHERE tenant_id = $1 AND job_id = $2", desk.tenant_id, answer.job_id
    )
    assert (job["state"] == "syncing") is bool(changed)


async def _check_contacts(desk: Desk, prefix: str, model: Model) -> None:
    stored = {
        row["record_id"]: _seen(row) | {"version": row["version"]}
        for row in await desk.contacts()
        if row["record_id"].startswith(prefix)
    }
    assert stored == {name: _image(c) | {"version": c.version} for name, c in model.contacts.items()}


async def _check_history(desk: Desk, prefix: str, model: Model) -> None:
    """From the contact back to version 1, every step names its maker and shows the contact as it then was."""
    rows = [row for row in await desk.history() if row["record_id"].startswith(prefix)]
    by_maker = {(r["job_id"], r["item_index"]): r for r in rows}
    assert len(rows) == sum(c.version for c in model.contacts.values())
    newest = [row for row in await desk.contacts() if row["record_id"].startswith(prefix)]
    for contact in newest:
        known = model.contacts[contact["record_id"]]
        step: Any = contact
        for version in range(known.version, 0, -1):
            row = by_maker[step["job_id"], step["item_index"]]
            job, index, then = known.history[version - 1]
            assert (row["job_id"], row["item_index"]) == (job, index)
            assert (row["record_id"], row["version"]) == (contact["record_id"], version)
            assert _seen(row) == _image(then)
            assert (row["prev_job_id"], row["prev_item_index"]) == (
                known.history[version - 2][:2] if version > 1 else (None, None)
            )
            step = {"job_id": row["prev_job_id"], "item_index": row["prev_item_index"]}
        if known.version > 1:
            assert (contact["prev_job_id"], contact["prev_item_index"]) == known.history[-2][:2]
        else:
            assert contact["prev_job_id"] is None


def _seen(row: dict[str, Any]) -> dict[str, Any]:
    image = {name: row[name] for name in ("source_version", "deleted", "email", *TEXTS)}
    image["cleared"] = set(row["cleared"] or ())
    return image | {"attributes": canonical(row["attributes"])}


def _image(contact: Contact) -> dict[str, Any]:
    return {
        "source_version": contact.source_version,
        "deleted": contact.deleted,
        "email": contact.email,
        **contact.texts,
        "cleared": contact.cleared,
        "attributes": canonical(contact.attributes),
    }


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        ({}, {"first_name": "Ada", "attributes": {"x": 1, "y": 2}}),
        ({"first_name": None}, {"first_name": None, "attributes": {"x": 1, "y": 2}}),
        ({"attributes": {}}, {"first_name": "Ada", "attributes": {"x": 1, "y": 2}}),
        ({"attributes": {"x": None}}, {"first_name": "Ada", "attributes": {"y": 2}}),
        ({"attributes": {"x": 3, "z": None}}, {"first_name": "Ada", "attributes": {"x": 3, "y": 2}}),
        ({"attributes": None}, {"first_name": "Ada", "attributes": {}}),
    ],
    ids=["absent", "null clears", "no keys", "null removes", "merge", "null clears all"],
)
async def test_absent_leaves_and_null_clears(desk: Desk, sent: dict[str, Any], stored: dict[str, Any]) -> None:
    """The contract's own sentence, case by case."""
    first = {"id": "c1", "email": "a@example.com", "first_name": "Ada", "attributes": {"x": 1, "y": 2}}
    await desk.push([first])
    await desk.push([{"id": "c1", "email": "a@example.com"} | sent])
    (row,) = await desk.contacts()
    assert {name: row[name] for name in stored} == stored


@pytest.mark.parametrize("null", [{"first_name": None}, {"attributes": {"x": None}}], ids=["field", "attribute"])
async def test_a_null_is_news_to_a_record_that_came_back(desk: Desk, null: dict[str, Any]) -> None:
    """A removal forgets what was named; what destinations are to clear, it does not."""
    plain = {"id": "c1", "email": "a@example.com"}
    steps = [plain | {"first_name": "Ada", "attributes": {"x": 1}}, {"id": "c1", "deleted": True}, plain]
    steps += [plain | null, plain | null]
    told = [told for step in steps for told in _told(await desk.push([step]))]
    assert [(t.word, t.version) for t in told] == [
        ("created", 1), ("deleted", 2), ("updated", 3), ("updated", 4), ("unchanged", 4)
    ]  # fmt: skip
    (row,) = await desk.contacts()
    assert set(row["cleared"]) == {"email", "first_name", "attributes.x"}


async def test_a_newer_source_version_is_kept_though_nothing_changed(desk: Desk) -> None:
    """Or an item older than what was seen could win later."""
    item = {"id": "c1", "email": "a@example.com"}
    await desk.push([item | {"source_version": 1}])
    await desk.push([item | {"source_version": 5}])
    late = await desk.push([item | {"source_version": 3, "email": "old@example.com"}])
    assert _told(late) == [Told("ok", "superseded", 1)]
    (row,) = await desk.contacts()
    assert (row["email"], row["source_version"], row["version"]) == ("a@example.com", 5, 1)
