"""From an item's bytes to a row that can be stored, or to everything that is wrong with it."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.resources import decoding as module
from app.resources import documents
from app.resources.decoding import Accepted, Rejected
from tests.types import CONTACTS, read_items
from tests.unit.files.json_oracle import split_json
from tests.unit.files.test_json_document import POISON, body_of, mutate, mutations

LIMIT = 65_536
GOOD = {"id": "c1", "email": "c1@example.com"}


def read(*items: Any, limit: int = LIMIT) -> list[Accepted | Rejected]:
    raws = [item if isinstance(item, bytes) else json.dumps(item).encode() for item in items]
    return read_items(raws, max_item_bytes=limit)


def accept(item: Any) -> Accepted:
    (row,) = read(item)
    assert isinstance(row, Accepted), row
    return row


def reject(item: Any, *, limit: int = LIMIT) -> Rejected:
    (row,) = read(item, limit=limit)
    assert isinstance(row, Rejected), row
    assert row.errors
    msgspec.json.encode(row)  # an answer can carry it
    return row


def faults(item: Any, **options: int) -> list[tuple[str, str]]:
    return [(error.code.value, error.pointer) for error in reject(item, **options).errors]


def test_a_whole_item_becomes_a_row() -> None:
    item = {
        "id": "DD37Cf93aecA6Dc",
        "email": "zunigavanessa@smith.info",
        "first_name": "Sheryl",
        "last_name": "Bäxter",
        "phone": "(496)978-3969x58947",
        "company": "Rasmussen Group",
        "attributes": {"city": "East Leonard", "site": "http://x.example/", "old": None, "n": [1, {"a": 2.5}]},
        "if_version": 3,
        "source_version": 2**63 - 1,
    }
    row = accept(item)
    assert (row.index, row.record_id) == (0, item["id"])
    fields = {name: item[name] for name in ("email", "first_name", "last_name", "phone", "company")}
    attributes = {f"attributes.{key}": value for key, value in item["attributes"].items()}
    assert json.loads(row.document) == fields | attributes
    assert row.cleared == ["attributes.old"]
    assert (row.if_version, row.source_version) == (3, 2**63 - 1)
    assert row.size == len(json.dumps(item))


def test_absent_leaves_and_null_clears() -> None:
    absent = accept(GOOD)
    assert json.loads(absent.document) == {"email": GOOD["email"]}
    assert (absent.cleared, absent.if_version) == (None, None)
    fields = ("first_name", "last_name", "phone", "company", "attributes")
    cleared = accept({**GOOD, **dict.fromkeys(fields)})
    assert json.loads(cleared.document) == {"email": GOOD["email"], **dict.fromkeys(fields[:-1])}
    assert cleared.cleared == list(fields)
    unversioned = accept({**GOOD, "if_version": None, "source_version": None})
    assert (unversioned.document, unversioned.cleared) == (absent.document, None)
    empty = accept({**GOOD, "attributes": {}, "company": ""})
    assert json.loads(empty.document) == {"email": GOOD["email"], "company": ""}
    assert empty.cleared is None


@pytest.mark.parametrize(
    ("attributes", "removes"), [({"a": None}, True), ({"a": "null"}, False), ({"a": [None]}, False)]
)
def test_only_a_null_value_removes_a_key(attributes: dict[str, Any], removes: bool) -> None:
    assert accept({**GOOD, "attributes": attributes}).cleared == (["attributes.a"] if removes else None)


@pytest.mark.parametrize("ids", [[" a", "b"], ["a", "b "], ["a", " b", "c"], ["a\u2003"], ["\u00a0a"]])
def test_white_space_around_an_id_is_found_wherever_its_item_is(ids: list[str]) -> None:
    """Also at the two ends of what is read together."""
    raws = [json.dumps({**GOOD, "id": id_}, ensure_ascii=False).encode() for id_ in ids]
    rows = read_items(raws, max_item_bytes=10_000)
    assert [isinstance(row, Rejected) for row in rows] == [id_ != id_.strip() for id_ in ids]


def item_with(member: bytes) -> bytes:
    return b'{"id":"c1","email":"c1@example.com",' + member + b"}"


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ({}, [("MISSING_FIELD", "/id"), ("MISSING_FIELD", "/email")]),
        ({"id": None, "email": None}, [("MISSING_FIELD", "/id"), ("MISSING_FIELD", "/email")]),
        ({**GOOD, "id": ""}, [("INVALID_FIELD", "/id")]),
        ({**GOOD, "id": "x" * 256}, [("INVALID_FIELD", "/id")]),
        ({**GOOD, "id": 7}, [("INVALID_FIELD", "/id")]),
        ({**GOOD, "email": "nope"}, [("INVALID_EMAIL", "/email")]),
        ({**GOOD, "email": " c1@example.com"}, [("INVALID_EMAIL", "/email")]),
        ({**GOOD, "email": ["c1@example.com"]}, [("INVALID_FIELD", "/email")]),
        ({**GOOD, "phone": "none"}, [("INVALID_PHONE", "/phone")]),
        ({**GOOD, "phone": 491234}, [("INVALID_FIELD", "/phone")]),
        ({**GOOD, "company": "x" * 1_001}, [("INVALID_FIELD", "/company")]),
        ({**GOOD, "firstname": "Ann"}, [("UNKNOWN_FIELD", "/firstname")]),
        ({**GOOD, "mask": 255, "index": 9}, [("UNKNOWN_FIELD", "/mask"), ("UNKNOWN_FIELD", "/index")]),
        ({**GOOD, "a/b~c": 1}, [("UNKNOWN_FIELD", "/a~1b~0c")]),
        ({**GOOD, "if_version": True}, [("INVALID_FIELD", "/if_version")]),
        ({**GOOD, "if_version": -1}, [("INVALID_FIELD", "/if_version")]),
        ({**GOOD, "source_version": 2**63}, [("INVALID_FIELD", "/source_version")]),
        ({**GOOD, "source_version": "1"}, [("INVALID_FIELD", "/source_version")]),
        ({**GOOD, "attributes": []}, [("INVALID_FIELD", "/attributes")]),
        ({**GOOD, "attributes": {"": 1}}, [("INVALID_FIELD", "/attributes/")]),
        ({**GOOD, "attributes": {"a": {"": 1}}}, [("INVALID_FIELD", "/attributes/a/")]),
        ({**GOOD, "attributes": {"a": [2**63]}}, [("INVALID_FIELD", "/attributes/a/0")]),
        ({**GOOD, "attributes": {"a": -(2**63)}}, [("INVALID_FIELD", "/attributes/a")]),
        ({**GOOD, "attributes": {"a": 1e19}}, [("INVALID_FIELD", "/attributes/a")]),
        ({**GOOD, "attributes": {"a": {"b": "x\0"}}}, [("INVALID_FIELD", "/attributes/a/b")]),
        ({**GOOD, "last_name": "x\0"}, [("INVALID_FIELD", "/last_name")]),
        ({**GOOD, "last_name": "\ud83d"}, [("INVALID_FIELD", "/last_name")]),
        (item_with(b'"company":"caf\xe9"'), [("INVALID_FIELD", "/company")]),
        (item_with(b'"attributes":{"k\xff":1}'), [("INVALID_FIELD", "/attributes/k\ufffd")]),
        (item_with(b'"attributes":{"n":1e400}'), [("INVALID_FIELD", "/attributes/n")]),
        (item_with(b'"attributes":{"n":' + b"9" * 400 + b"}"), [("INVALID_FIELD", "/attributes/n")]),
        (item_with(b'"attributes":{"n":NaN}'), [("INVALID_FIELD", "/attributes/n")]),
        (item_with(b'"source_version":1e400'), [("INVALID_FIELD", "/source_version")]),
        (item_with(b'"phone":01'), [("INVALID_FIELD", "/phone")]),
        (item_with(b'"phone":01,"last_name":NaN'), [("INVALID_FIELD", "/phone"), ("INVALID_FIELD", "/last_name")]),
        (item_with(b'"company":"a\tb"'), [("INVALID_FIELD", "/company")]),
        (item_with(b'"attributes":' + b'{"a":' * 2_000 + b"1" + b"}" * 2_000), [("INVALID_FIELD", "/attributes")]),
        (item_with(b'"attributes":{"a":' + b"[" * 40 + b"]" * 40 + b"}"), [("INVALID_FIELD", "/attributes/a")]),
        (item_with(b'"email":"d@example.com"'), [("INVALID_FIELD", "/email")]),
        (item_with(b'"\\u0065mail":"d@example.com"'), [("INVALID_FIELD", "/email")]),
        (item_with(b'"attributes":{"a":1,"a" :1}'), [("INVALID_FIELD", "/attributes/a")]),
        (item_with(b'"attributes":{"x":{"a":1,"a":1}}'), [("INVALID_FIELD", "/attributes/x/a")]),
        (item_with(b"phone:1"), [("INVALID_FIELD", "")]),
        (item_with(b'"phone":"1",'), [("INVALID_FIELD", "")]),
        (item_with(b'"phone":"1"}x{'), [("INVALID_FIELD", "")]),
        (b"[]", [("INVALID_FIELD", "")]),
        (b"null", [("INVALID_FIELD", "")]),
        (b"{", [("INVALID_FIELD", "")]),
        (b"", [("INVALID_FIELD", "")]),
    ],
)
def test_each_fault_is_told_with_code_and_place(item: Any, expected: list[tuple[str, str]]) -> None:
    assert faults(item) == expected


def test_all_faults_of_an_item_are_told_at_once() -> None:
    item = (
        b'{"email":"nope","phone":"none","Firstname":"\\u0000","company":5,"company":01,'
        b'"attributes":{"":NaN,"b":"\xff"}}'
    )
    assert faults(item) == [
        ("INVALID_FIELD", "/company"),
        ("INVALID_EMAIL", "/email"),
        ("INVALID_PHONE", "/phone"),
        ("UNKNOWN_FIELD", "/Firstname"),
        ("INVALID_FIELD", "/company"),
        ("INVALID_FIELD", "/attributes/"),
        ("INVALID_FIELD", "/attributes/"),
        ("INVALID_FIELD", "/attributes/b"),
        ("MISSING_FIELD", "/id"),
    ]


def test_the_id_is_told_whenever_it_can_be_read() -> None:
    assert reject({"id": "c7"}).record_id == "c7"
    assert reject(b'{"id":"c7","email":"\xff","phone":01}').record_id == "c7"
    assert reject(b'{"attributes":' + b"[" * 3_000 + b"]" * 3_000 + b',"id":"c7"}').record_id == "c7"
    assert reject({"id": "c7", "email": "x" * 200}, limit=100).record_id == "c7"
    for unusable in ("", "a\0", "\ud800", "x" * 256, None):
        assert reject({"id": unusable, "email": "nope"}).record_id is None
    assert reject({"id": 7, "email": "nope"}).record_id == "7", "refused, and still found by its sender"


def test_an_item_too_large_is_told_so() -> None:
    item = {**GOOD, "attributes": {"a": "x" * 100}}
    size = len(json.dumps(item))
    accept(item)
    assert read(item, limit=size)[0] == accept(item)
    assert faults(item, limit=size - 1) == [("ITEM_TOO_LARGE", "")]


def test_endless_faults_are_listed_up_to_a_bound_that_is_told() -> None:
    errors = reject({f"field{number}": 1 for number in range(1_000)}).errors
    assert len(errors) == 20
    assert "more errors" in errors[-1].detail
    broken = b"{" + b",".join(b'"k%d":01' % number for number in range(1_000)) + b"}"
    assert len(reject(broken).errors) == 20


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": "), (" ,\n", " : "), (",", "\t:\r\n")])
@pytest.mark.parametrize("text", ["http://example.com:80/", 'say ":" and "a":1', '":":":', "a : b :", "\\"])
def test_colons_and_quotes_in_text_are_not_taken_for_keys(separators: tuple[str, str], text: str) -> None:
    item = {**GOOD, "company": text, "attributes": {text: text, "b": {text: [text]}}}
    for ascii_only in (True, False):
        raw = json.dumps(item, separators=separators, ensure_ascii=ascii_only).encode()
        row = accept(raw)
        document = json.loads(row.document)
        assert document["company"] == text
        assert documents.attributes_of(document) == item["attributes"]
        doubled = raw[:-1].rstrip() + b',"company" :"' + b'other"}'
        assert ("INVALID_FIELD", "/company") in faults(doubled)


clean = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
tricky = st.lists(st.sampled_from(['"', ":", " ", "\\", "{", "[", "null", "\n", "é", "a"]), max_size=6).map("".join)
texts = clean | tricky
numbers = st.integers(-(2**63 - 1), 2**63 - 1) | st.floats(-9e18, 9e18)
keys = texts.filter(bool)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)
sound_items = st.fixed_dictionaries(
    {
        "id": keys.filter(lambda key: key == key.strip()),
        "email": st.sampled_from(["a@b.co", "jörg@exämple.de", "x" * 60 + "@example.com"]),
    },
    optional={
        "first_name": st.none() | texts,
        "last_name": st.none() | texts,
        "phone": st.none() | texts.map(lambda text: text + "7"),
        "company": st.none() | texts,
        "attributes": st.none() | st.dictionaries(keys, values, max_size=4),
        "if_version": st.none() | st.integers(0, 2**63 - 1),
        "source_version": st.none() | st.integers(0, 2**63 - 1),
    },
)


def storable(value: Any) -> bool:
    """Whether PostgreSQL's text and jsonb hold it."""
    if isinstance(value, str):
        value.encode()
        return "\0" not in value
    if isinstance(value, dict):
        return all(storable(key) and storable(inner) for key, inner in value.items())
    if isinstance(value, list):
        return all(map(storable, value))
    if isinstance(value, float):
        return math.isfinite(value) and abs(value) < 2**64
    return value is None or isinstance(value, bool) or abs(value) < 2**63


def assert_storable(row: Accepted) -> None:
    assert storable(row.record_id)
    assert 1 <= len(row.record_id) <= 255
    assert storable(json.loads(row.document))
    assert all(number is None or 0 <= number < 2**63 for number in (row.if_version, row.source_version))


@given(sound_items, st.booleans(), st.sampled_from([None, 1]))
def test_every_sound_item_comes_back_as_it_was_sent(item: dict[str, Any], ascii_only: bool, indent: int | None) -> None:
    row = accept(json.dumps(item, ensure_ascii=ascii_only, indent=indent).encode())
    assert_storable(row)
    assert row.record_id == item["id"]
    left_out = ("id", "attributes", "if_version", "source_version")
    fields = {name: value for name, value in item.items() if name not in left_out}
    attributes = item.get("attributes")
    named = fields | {f"attributes.{key}": value for key, value in (attributes or {}).items()}
    assert json.loads(row.document) == named
    cleared = [name for name, value in named.items() if value is None]
    if "attributes" in item and attributes is None:
        cleared.append("attributes")
    assert sorted(row.cleared or []) == sorted(cleared)
    assert (row.if_version, row.source_version) == (item.get("if_version"), item.get("source_version"))


@given(sound_items, mutations)
def test_both_readings_agree_on_whatever_arrives(item: dict[str, Any], edits: list[tuple[int, int, int]]) -> None:
    for raw in (json.dumps(item).encode(), mutate(json.dumps(item, ensure_ascii=False).encode(), edits)):
        (row,) = read(raw)
        thorough = module.reader_of(CONTACTS)._read_thoroughly(0, raw, module.Effort())
        assert row == thorough
        if isinstance(row, Accepted):
            assert_storable(row)
        else:
            assert b"\0" not in msgspec.json.encode(row)


@given(sound_items, st.data())
def test_a_key_that_stands_twice_is_never_missed(item: dict[str, Any], data: st.DataObject) -> None:
    space = st.text(" \t\r\n", max_size=2)

    def write(value: Any, doubled: list[str]) -> str:
        if isinstance(value, dict):
            pairs = list(value.items())
            if pairs and data.draw(st.integers(0, 3)) == 0:
                again = data.draw(st.sampled_from(pairs))
                pairs.insert(data.draw(st.integers(0, len(pairs))), again)
                doubled.append(again[0])
            return "{" + ",".join(f"{json.dumps(k)}{data.draw(space)}:{write(v, doubled)}" for k, v in pairs) + "}"
        if isinstance(value, list):
            return "[" + ",".join(write(inner, doubled) for inner in value) + "]"
        return json.dumps(value)

    doubled: list[str] = []
    text = write(item, doubled)
    assert isinstance(read(text.encode())[0], Rejected) is bool(doubled)


@given(st.lists(sound_items, max_size=5), st.integers(0, 5), st.sampled_from(POISON))
def test_a_bad_item_harms_only_itself(items: list[dict[str, Any]], at: int, poison: bytes) -> None:
    raws = [json.dumps(item).encode() for item in items]
    alone = read(*raws)
    at = min(at, len(raws))
    mixed = read(*raws[:at], poison, *raws[at:])
    assert isinstance(mixed.pop(at), Rejected)
    for row in mixed[at:]:
        row.index -= 1  # type: ignore[misc]  # all of these are Accepted
    assert mixed == alone


def test_a_thousand_items_with_every_poison_fail_exactly_there() -> None:
    good = [json.dumps({"id": f"g{n}", "email": f"g{n}@example.com"}).encode() for n in range(1_000 - len(POISON))]
    raws = [*good]
    for n, poison in enumerate(POISON):
        raws.insert(n * 30, poison)
    rows = read_items(split_json(body_of(raws)), max_item_bytes=LIMIT)
    assert [row.index for row in rows] == list(range(1_000))
    assert [row.index for row in rows if isinstance(row, Rejected)] == [n * 30 for n in range(len(POISON))]


@given(st.binary(max_size=80))
def test_any_bytes_are_read_without_an_exception_and_always_alike(raw: bytes) -> None:
    for item in (raw, b"{" + raw + b"}", b'{"id":"a","attributes":{' + raw + b"}}"):
        assert read(item) == read(item)
