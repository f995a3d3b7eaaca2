"""Cutting a body into items: what is inside an item never matters, what is between them always does."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.files.json_document import MalformedBody
from tests.unit.files.json_oracle import TooManyItems, split_json

GOOD = [b'{"id":"g1","email":"g1@example.com"}', b'{"id":"g2","email":"g2@example.com","attributes":{"a":[1]}}']
POISON = [
    b'{"id":"p","email":"\xff\xfe"}',
    b'{"id":"p","email":"\xed\xa0\x80"}',
    b'{"id":"p","first_name":"\\u0000"}',
    b'{"id":"p","first_name":"\\ud800"}',
    b'{"id":"p","first_name":"\\udc00\\ud800"}',
    b'{"id":"p","source_version":1e400}',
    b'{"id":"p","attributes":{"n":' + b"9" * 400 + b"}}",
    b'{"id":"p","attributes":' + b"[" * 2000 + b"]" * 2000 + b"}",
    b'{"id":"p","attributes":' + b'{"a":' * 2000 + b"1" + b"}" * 2000 + b"}",
    b"[" * 2000 + b"]" * 2000,
    b'{"id":"p","id":"q"}',
    b'{"a":01}',
    b'{"a":NaN}',
    b"{a:1}",
    b'{"id":"p","first_name":"\x01\n"}',
    b'{"id":"p" "email":"x"}',
    b'{"id":"p",}',
    b'{"id":"\\x"}',
    b'{"id":"}{][,"}',
    b'{"id":"say \\"hi\\" \\\\"}',
    b'{"a":]',
    b"1",
    b"-",
    b"nonsense",
    b'"text"',
    b"null",
    b"[]",
    b"{}",
]


def body_of(items: list[bytes], *, around: bytes = b"") -> bytes:
    return b'{"items":[' + (around + b"," + around).join(items) + b"]}"


def cut(body: bytes, **options: int) -> list[bytes]:
    return [bytes(raw) for raw in split_json(body, **options)]


def outcome(body: bytes) -> str:
    """`cut` or `refused`, if it was done as it should be."""
    try:
        items = split_json(body)
    except MalformedBody as error:
        return "refused" if error.detail.isprintable() and 0 <= error.offset <= len(body) else ""
    return "cut" if all(bytes(item).strip(b" \t\r\n") for item in items) else ""


@pytest.mark.parametrize("poison", POISON)
@pytest.mark.parametrize("around", [b"", b" \r\n\t"])
def test_a_bad_item_is_cut_out_whole_and_its_neighbours_stay_as_they_were(poison: bytes, around: bytes) -> None:
    for items in ([poison, *GOOD], [GOOD[0], poison, GOOD[1]], [*GOOD, poison], [poison, GOOD[0], poison, poison]):
        assert cut(body_of(items, around=around)) == items


def test_all_bad_items_together_keep_their_places() -> None:
    mixed = [item for poison in POISON for item in (*GOOD, poison)]
    assert cut(body_of(mixed)) == mixed


@pytest.mark.parametrize(
    "body",
    [b'{"items":[1,2]}', b'\xef\xbb\xbf{"items":[1,2]}', b' \n{ "items" :\t[ 1 , 2 ] } \r\n', b'{"\\u0069tems":[1,2]}'],
)
def test_white_space_a_byte_order_mark_and_an_escaped_name_are_tolerated(body: bytes) -> None:
    assert cut(body) == [b"1", b"2"]


@pytest.mark.parametrize("body", [b'{"items":[]}', b'{"items":[ \n]}', b'\xef\xbb\xbf{"items" : []}\n'])
def test_no_items_are_no_items(body: bytes) -> None:
    assert cut(body) == []


@pytest.mark.parametrize(
    ("body", "words", "offset"),
    [
        (b"", "empty", 0),
        (b" \n", "empty", 2),
        (b"[]", "wrap it", 0),
        (b'"x"', "not a JSON object", 0),
        (b"id,email\n1,a@b.c", "not a JSON object", 0),
        ('{"items":[]}'.encode("utf-16"), "UTF-8", 0),
        ('{"items":[]}'.encode("utf-16-be"), "UTF-8", 0),
        (b"{}", '"items" is missing', 1),
        (b'{"contacts":[]}', '"contacts"', 1),
        (b'{"items":[1],"extra":2}', '"extra"', 13),
        (b'{"extra":2,"items":[1]}', '"extra"', 1),
        (b'{"items":[1],"items":[2]}', "twice", 13),
        (b'{"items":{"id":"1"}}', "must be an array", 9),
        (b'{"items":null}', "must be an array", 9),
        (b'{"items":[1]', "expected", 12),
        (b'{"items":[1],}', "member name", 13),
        (b'{"items":[1]}{}', "follows", 13),
        (b'{"items":[1]} x', "follows", 14),
        (b'{"items":[1', "']'", 11),
        (b'{"items":[1,2,]}', "missing", 14),
        (b'{"items":[,1]}', "missing", 10),
        (b'{"items":[1,,2]}', "missing", 12),
        (b'{"items":[{"a":1} {"b":2}]}', "expected", 18),
        (b'{"items":[{"a":1}x,{"b":2}]}', "expected", 17),
        (b'{"items":[x{"a":1}]}', "expected", 11),
        (b'{"items":[{"a":"x]}', "never closed", 15),
        (b'{"items":[{"a":[1,{"b":2}]}', "the end came", 27),
        (b'{"items":[{"a":{"b":2}]}', "expected", 23),
        (b'{"items":["a]}', "never closed", 10),
        (b'{"items":[1}', "expected", 11),
        (b'\xef\xbb\xbf{"items":[1}', "expected", 14),
        (b"{items:[1]}", "member name", 1),
    ],
)
def test_a_body_without_certain_items_is_refused_with_place_and_remedy(body: bytes, words: str, offset: int) -> None:
    with pytest.raises(MalformedBody) as caught:
        split_json(body)
    assert words in caught.value.detail
    assert caught.value.offset == offset


@pytest.mark.parametrize(
    "items", [b'{"a":"x"y"},{"lost":1},{"c":"x"y"}', b'{"a":[1},{"lost":1},{"c":1]}', b'{"a":[[1},{"lost":1},{"c":1]]}']
)
def test_strays_that_would_swallow_an_item_refuse_the_body_instead_of_losing_it(items: bytes) -> None:
    with pytest.raises(MalformedBody, match="run into the next"):
        split_json(b'{"items":[' + items + b"]}")


@pytest.mark.parametrize(
    "item",
    [
        b'{"attributes":{"pets":[{"a":1},{"b":01}]}}',
        b'{"attributes":{"pets":[[1],[2]]},"phone":NaN}',
        b'{"attributes":' + b"[" * 2000 + b'{"a":1},{"b":2}' + b"]" * 2000 + b"}",
    ],
)
def test_lists_inside_a_bad_item_are_not_mistaken_for_items(item: bytes) -> None:
    assert cut(body_of([item, GOOD[0]])) == [item, GOOD[0]]


@pytest.mark.parametrize("item", [b"1", b'{"a":01}', b'{"id":"x"}'])
def test_more_items_than_allowed_are_refused_whether_they_can_be_read_or_not(item: bytes) -> None:
    assert len(split_json(body_of([item] * 50), max_items=50)) == 50
    for count in (51, 10_000):
        with pytest.raises(TooManyItems, match="more than 50"):
            split_json(body_of([item] * count), max_items=50)


@pytest.mark.parametrize(
    "unit", [b"[", b"{", b'"', b'""', b"[ ", b"[[]", b'{"a":', b"[1,", b"[]", b"\\", b'"\\', b"]", b",", b":", b"\xff"]
)
@pytest.mark.parametrize("end", [b"", b"]}"])
def test_a_large_hostile_body_is_cut_or_refused(unit: bytes, end: bytes) -> None:
    body = b'{"items":[' + unit * (300_000 // len(unit)) + end
    assert outcome(body)


def test_a_deep_item_that_balances_is_one_item() -> None:
    deep = b"[" * 50_000 + b"1" + b"]" * 50_000
    assert cut(body_of([deep, GOOD[0]])) == [deep, GOOD[0]]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@given(st.lists(json_values, max_size=8), st.sampled_from([None, 0, 2]), st.booleans())
def test_every_valid_body_is_cut_as_a_json_parser_would(items: list[Any], indent: int | None, ascii_only: bool) -> None:
    text = json.dumps({"items": items}, indent=indent, ensure_ascii=ascii_only)
    body = text.encode("utf-8", "surrogatepass")
    assert [json.loads(raw.decode("utf-8", "surrogatepass")) for raw in cut(body)] == json.loads(text)["items"]


@given(st.lists(json_values, max_size=6), st.integers(0, 6), st.sampled_from(POISON))
def test_a_bad_item_anywhere_among_any_items_changes_no_other(items: list[Any], at: int, poison: bytes) -> None:
    raws = [json.dumps(item, ensure_ascii=True).encode() for item in items]
    raws.insert(at, poison)
    if b'"p" "email"' in poison and any(b"},{" in raw or b"],[" in raw for raw in raws):
        return
    assert cut(body_of(raws)) == raws


mutations = st.lists(
    st.tuples(st.integers(0, 10_000), st.sampled_from([0, 1, 2]), st.integers(0, 255)), min_size=1, max_size=8
)


def mutate(body: bytes, edits: list[tuple[int, int, int]]) -> bytes:
    data = bytearray(body)
    for place, edit, byte in edits:
        at = place % (len(data) or 1)
        if edit == 0:
            data[at : at + 1] = bytes([byte])
        elif edit == 1:
            data[at:at] = bytes([byte])
        else:
            del data[at : at + 1 + byte % 8]
    return bytes(data)


@given(mutations)
@example([(9, 0, 0x5D)])
def test_mutated_bodies_are_cut_or_refused_and_nothing_else(edits: list[tuple[int, int, int]]) -> None:
    body = mutate(body_of([*GOOD, *POISON[:6], *POISON[10:]]), edits)
    assert outcome(body)


@given(st.binary(max_size=60))
@example(b"\x0b")  # white space to Python, not to JSON
def test_random_bytes_are_refused_and_nothing_else(tail: bytes) -> None:
    for body in (tail, b'{"items":[' + tail, b'{"items":[' + tail + b"]}"):
        assert outcome(body)
