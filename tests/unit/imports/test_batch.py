"""Items of one id in one batch: each contact is written at most once and every item is accounted for."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.imports.batch.duplicates import Batch, resolve_duplicates
from app.resources.decoding import Accepted, Rejected
from tests.types import read_items


def resolve(*items: Any, last_wins: bool = False) -> Batch:
    raws = [item if isinstance(item, bytes) else json.dumps(item).encode() for item in items]
    return resolve_duplicates(read_items(raws, max_item_bytes=65_536), last_wins=last_wins)


def contact(record_id: str, **fields: Any) -> dict[str, Any]:
    return {"id": record_id, "email": "a@b.co", **fields}


def indexes(rows: list[Accepted] | list[Rejected]) -> list[int]:
    return [row.index for row in rows]


def test_without_duplicates_all_are_applied_in_the_order_of_their_ids() -> None:
    ids = ["b", "a", "é", "Z", "\U0001f600", "\uffff", "aa", "1"]
    batch = resolve(*map(contact, ids))
    assert [row.record_id for row in batch.applied] == sorted(ids, key=lambda text: text.encode())
    assert (batch.followers, batch.superseded, batch.rejected) == ({}, {}, [])


@pytest.mark.parametrize("last_wins", [False, True])
def test_equal_items_are_applied_once_and_follow_the_first(last_wins: bool) -> None:
    first = contact("a", attributes={"x": 1, "y": {"p": 1, "q": [2]}}, company=None)
    turned = b'{"company":null,"attributes":{"y":{"q":[2],"p":1},"x":1},"email":"\\u0061@b.co", "id":"a"}'
    batch = resolve(contact("b"), first, turned, first, last_wins=last_wins)
    assert indexes(batch.applied) == [1, 0]
    assert batch.followers == {2: 1, 3: 1}
    assert (batch.superseded, batch.rejected) == ({}, [])


DIFFERING = [
    (contact("a"), contact("a", phone="1")),
    (contact("a"), contact("a", company=None)),
    (contact("a", attributes=None), contact("a", attributes={})),
    (contact("a", attributes={"x": 1}), contact("a", attributes={"x": True})),
    (contact("a", attributes={"x": [1, 2]}), contact("a", attributes={"x": [2, 1]})),
    (contact("a", attributes={"x": None}), contact("a", attributes={})),
    (contact("a", if_version=1), contact("a")),
    (contact("a", source_version=1), contact("a", source_version=2)),
]


@pytest.mark.parametrize(("one", "other"), DIFFERING)
def test_differing_items_fail_and_name_each_other(one: dict[str, Any], other: dict[str, Any]) -> None:
    batch = resolve(one, contact("b"), other)
    assert indexes(batch.applied) == [1]
    assert indexes(batch.rejected) == [0, 2]
    for row, named in zip(batch.rejected, ("item 2 ", "item 0 "), strict=True):
        (error,) = row.errors
        assert (row.record_id, error.code, error.pointer) == ("a", "DUPLICATE_IN_BATCH", "/id")
        assert named in error.detail
        assert "on_duplicate=last_wins" in error.detail


@pytest.mark.parametrize(("one", "other"), DIFFERING)
def test_the_last_wins_when_asked_to(one: dict[str, Any], other: dict[str, Any]) -> None:
    batch = resolve(one, contact("b"), one, other, last_wins=True)
    assert indexes(batch.applied) == [3, 1]
    assert batch.superseded == {0: 3, 2: 3}
    assert (batch.followers, batch.rejected) == ({}, [])


def test_an_item_that_is_rejected_anyway_is_no_duplicate() -> None:
    batch = resolve(contact("a"), contact("a", phone="none"), contact("a", email="x"))
    assert indexes(batch.applied) == [0]
    assert [row.errors[0].code for row in batch.rejected] == ["INVALID_PHONE", "INVALID_EMAIL"]


def test_ids_are_compared_exactly() -> None:
    assert len(resolve(contact("a"), contact("A"), contact("a."), contact("á"), contact("a\u0301")).applied) == 5


def test_a_thousand_items_of_one_id_do_not_name_a_million() -> None:
    batch = resolve(*(contact("a", phone=str(number)) for number in range(1_000)))
    assert len(batch.rejected) == 1_000
    assert "and 989 more" in batch.rejected[0].errors[0].detail
    assert len(msgspec.json.encode(batch.rejected)) < 400_000


small = st.builds(
    contact,
    st.sampled_from("abcdef"),
    phone=st.sampled_from(["1", "2", None, "none"]),
    company=st.sampled_from(["x", None]),
)


@given(st.lists(small, max_size=12), st.booleans())
def test_every_item_is_accounted_for_once(items: list[dict[str, Any]], last_wins: bool) -> None:
    batch = resolve(*items, last_wins=last_wins)
    applied = indexes(batch.applied)
    everywhere = [*applied, *batch.followers, *batch.superseded, *indexes(batch.rejected)]
    assert sorted(everywhere) == list(range(len(items)))
    assert set(batch.followers.values()) | set(batch.superseded.values()) <= set(applied)
    ids = [row.record_id for row in batch.applied]
    assert ids == sorted(set(ids))
    for index, leader in batch.followers.items():
        assert leader < index
        assert items[leader] == items[index]
    for index, leader in batch.superseded.items():
        assert last_wins
        assert leader > index
        assert items[leader]["id"] == items[index]["id"]
    assert batch == resolve(*items, last_wins=last_wins)
