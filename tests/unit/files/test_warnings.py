"""What is noticed in the rows of a file and is no error is said with the item."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from app.files.readers import Family, Form
from app.files.staging_codec import decode_pieces, decode_sources, encode_pieces, encode_sources
from app.imports.batch.items import Items
from app.resources.decoding import Noted, Piece, read_ids
from app.vocabulary import outcomes_wire
from app.vocabulary.states import ItemStatus
from tests.types import CONTACTS
from tests.unit.files.reading import read_pieces


def pieces(text: str) -> list[Piece]:
    return read_pieces(text.encode(), Form(family=Family.CSV), max_items=100).pieces


def outcomes(given: list[Piece]) -> list[Any]:
    items = Items(CONTACTS, given, last_wins=False, max_item_bytes=65_536)
    applied = [row for part in items.parts() for row in part]
    items.decide({row.index: outcomes_wire.ItemOutcome(row.index, row.record_id, ItemStatus.OK) for row in applied})
    return list(msgspec.json.decode(outcomes_wire.encode_items(items.outcomes)))


def test_white_space_around_cells_is_left_out_and_told() -> None:
    first, second, _ = pieces('id,email,phone,City\n" 1 ", a@b.de ,030 1, Bonn \n2,c@d.de,,  \n3,e@f.de,,\n')
    assert isinstance(first, Noted)
    assert msgspec.json.decode(first.item) == {
        "id": "1",
        "email": "a@b.de",
        "phone": "030 1",
        "attributes": {"City": "Bonn"},
    }
    assert [(one.code, one.pointer) for one in first.warnings] == [
        ("TRIMMED", "/id"),
        ("TRIMMED", "/email"),
        ("TRIMMED", "/attributes/City"),
    ]
    assert isinstance(second, bytes), "a cell of white space is an empty one"


@pytest.mark.parametrize("stored", [False, True])
def test_the_outcome_of_an_item_has_its_warnings(stored: bool) -> None:
    given = pieces('id,email\n" 1",a@b.de\n2,c@d.de\n" 3",nothing\n')
    if stored:
        given, *_ = decode_pieces(encode_pieces(given))
    first, second, third = outcomes(given)
    assert first["warnings"] == [
        {"code": "TRIMMED", "pointer": "/id", "detail": "white space around the value was left out"}
    ]
    assert "warnings" not in second
    assert (third["status"], third["id"], third["warnings"][0]["code"]) == ("failed", "3", "TRIMMED")
    assert read_ids(given) == ["1", "2", "3"]
    assert decode_sources(encode_sources({0: given[0]})) == {0: b'{"id":"1","email":"a@b.de"}'}


@pytest.mark.parametrize(
    ("cells", "code", "place"),
    [
        ("1.0E+05,a@b.de,", "NUMBER_FORMAT", "/id"),
        ("7,a@b.de,4.91711E+11", "NUMBER_FORMAT", "/phone"),
        ('"=""007""",a@b.de,', "FORMULA", "/id"),
        ('7,a@b.de,"=""0171 123"""', "FORMULA", "/phone"),
    ],
)
def test_what_a_spreadsheet_did_to_a_key_or_number_is_told(cells: str, code: str, place: str) -> None:
    (piece,) = pieces(f"id,email,phone\n{cells}\n")
    assert isinstance(piece, Noted)
    assert [(one.code, one.pointer) for one in piece.warnings] == [(code, place)]


@pytest.mark.parametrize("key", ["1E5x", "E5", "12", "a=b", "1.5", "=1"])
def test_ordinary_keys_are_not_warned_of(key: str) -> None:
    (piece,) = pieces(f"id,email\n{key},a@b.de\n")
    assert isinstance(piece, bytes)
