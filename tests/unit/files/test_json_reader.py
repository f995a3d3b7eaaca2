"""A JSON body that arrives in pieces is cut into items just as one that is there as a whole."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.files.json_document import MalformedBody
from app.files.json_reader import MAX_ITEM, JsonItems, LongItem
from app.files.readers import Form, open_reader
from app.resources.decoding import UnreadablePiece
from tests.types import NAMES
from tests.unit.files.json_oracle import split_json
from tests.unit.files.test_json_document import GOOD, POISON, body_of, json_values, mutate, mutations

_CUTS = st.lists(st.integers(0, 5_000), max_size=8)


def run(chunks: list[bytes]) -> list[bytes | None] | str:
    machine = JsonItems()
    try:
        found = [item for chunk in chunks for item in machine.feed(chunk)]
        found += machine.finish()
    except MalformedBody as error:
        return error.detail
    return [None if isinstance(item, LongItem) else item for item in found]


def whole(body: bytes) -> list[bytes | None] | str:
    try:
        return [bytes(item) for item in split_json(body)]
    except MalformedBody as error:
        return error.detail


def cut(body: bytes, cuts: list[int]) -> list[bytes]:
    ends = sorted({0, len(body), *(at % (len(body) + 1) for at in cuts)})
    return [body[a:b] for a, b in pairwise(ends)]


def check(body: bytes, cuts: list[int]) -> None:
    """However it is cut; what is told of several faults may be any of them."""
    told = whole(body)
    for chunks in ([body], cut(body, cuts), [bytes([byte]) for byte in body]):
        found = run(chunks)
        if isinstance(found, str) and "run into the next" in found:
            assert isinstance(told, str)
        else:
            assert found == told, (body, chunks)


@given(st.lists(json_values, max_size=6), st.sampled_from([None, 0, 2]), st.booleans(), _CUTS)
def test_valid_bodies(items: list[Any], indent: int | None, ascii_only: bool, cuts: list[int]) -> None:
    text = json.dumps({"items": items}, indent=indent, ensure_ascii=ascii_only)
    check(text.encode("utf-8", "surrogatepass"), cuts)


@given(mutations, _CUTS)
@example([(9, 0, 0x5D)], [])
def test_mutated_bodies(edits: list[tuple[int, int, int]], cuts: list[int]) -> None:
    check(mutate(body_of([*GOOD, *POISON[:4], *POISON[10:]]), edits), cuts)


@given(st.text(st.sampled_from('{}[],:" \n\\a1'), max_size=40), _CUTS)
def test_wild_bodies(tail: str, cuts: list[int]) -> None:
    for head in ("", '{"items":', '{"items":[', '{"items":[{"a":"b"},'):
        for end in ("", "]}"):
            check((head + tail + end).encode(), cuts)


@given(st.binary(max_size=40), _CUTS)
def test_random_bytes(tail: bytes, cuts: list[int]) -> None:
    for head in (b"", b"\xef\xbb\xbf", b'{"items":[', b'\xff\xfe{"'):
        check(head + tail, cuts)


@pytest.mark.parametrize("size", [1_000, 65_536])
def test_an_item_that_is_too_long_fails_alone(size: int) -> None:
    long = b'{"id":"x","company":"' + b"\\\\x" * MAX_ITEM + b'","attributes":{"a":[[1]]}}'
    body = body_of([GOOD[0], long, GOOD[1]])
    reader = open_reader(Form(), NAMES)
    found = [p for at in range(0, len(body), size) for p in reader.feed(body[at : at + size])]
    found += reader.finish()
    assert (found[0], found[2]) == (GOOD[0], GOOD[1])
    assert isinstance(found[1], UnreadablePiece)
    assert found[1].errors[0].code == "ITEM_TOO_LARGE"
    assert f"byte {len(body_of([GOOD[0]])) - 1}" in found[1].errors[0].detail


@pytest.mark.parametrize(
    "stray",
    [
        (b'{"id":"x","company":"a"b"}', b'{"id":"y","company":"a"b"}'),
        (b'{"id":"x","attributes":[1}', b'{"id":"y","attributes":1]}'),
    ],
)
def test_a_span_that_swallows_items_is_refused_however_long_it_is(stray: tuple[bytes, bytes]) -> None:
    """One stray quote or bracket opens it, another one ends it two megabytes later."""
    between = [GOOD[0]] * (2 * MAX_ITEM // len(GOOD[0]))
    body = body_of([stray[0], *between, stray[1]])
    told = run([body[at : at + 10_000] for at in range(0, len(body), 10_000)])
    assert isinstance(told, str)
    assert "run into the next" in told


@pytest.mark.parametrize("unit", [b"[", b"{", b'"', b'""', b"[]", b"[ ", b"[1,", b'{"a":', b"\\", b'"\\', b"1 "])
def test_hostile_bodies_take_linear_time(unit: bytes) -> None:
    body = b'{"items":[' + unit * (400_000 // len(unit))
    run([body[at : at + 64] for at in range(0, len(body), 64)])
