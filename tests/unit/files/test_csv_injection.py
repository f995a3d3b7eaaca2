"""Cells that a spreadsheet would run: made harmless on the way out, and exactly as they were on the way back."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.files.csv_columns import NOTES, HeaderError, guard_key, understand
from app.files.csv_injection import neutralize, restore
from app.files.readers import WORDING, Family, Form
from tests.types import NAMES
from tests.unit.files.reading import read_pieces

CELLS = st.text(st.sampled_from("'=+-@\t\r\n＝a1 ,\"") | st.characters(exclude_categories=["Cs"]), max_size=8)  # noqa: RUF001


@given(CELLS)
def test_every_cell_comes_back(cell: str) -> None:
    guarded = neutralize(cell)
    assert restore(guarded) == cell
    assert guarded[:1] not in tuple("=+-@\t\r\n＝＋－＠")  # noqa: RUF001


def test_a_cell_typed_in_by_hand_needs_no_apostrophe() -> None:
    """Whoever fixes a phone number in a file of failed rows writes it as it is."""
    assert restore("+49 30 123") == "+49 30 123"
    assert restore("it's") == "it's"
    assert restore("'quoted'") == "'quoted'"


def build(header: list[str], cells: list[str], **mapping: str) -> dict[str, Any]:
    return understand(NAMES, header, mapping, WORDING).read(cells)[0]


def test_only_a_file_of_failed_rows_loses_apostrophes() -> None:
    """In any other file they are the sender's own."""
    assert build(["id", "email", "phone"], ["1", "a@b.de", "'+49"])["phone"] == "'+49"
    assert build([*NOTES, "id", "email", "phone"], ["X", "y", "0", "1", "a@b.de", "'+49"])["phone"] == "+49"


def test_the_names_of_a_file_of_failed_rows_are_taken_back_too() -> None:
    header = [*NOTES, "id", "email", "'=sum", "attributes.id", "attributes.error_code", "attributes.attributes.x"]
    item = build(header, ["X", "y", "0", "1", "a@b.de", "a", "b", "c", "d"])
    assert item == {
        "id": "1",
        "email": "a@b.de",
        "attributes": {"=sum": "a", "id": "b", "error_code": "c", "attributes.x": "d"},
    }
    plain = build(["id", "email", "attributes.id"], ["1", "a@b.de", "b"])
    assert plain["attributes"] == {"attributes.id": "b"}


@pytest.mark.parametrize(
    ("key", "column"),
    [
        ("city", "city"),
        ("First Name", "attributes.First Name"),
        ("error_detail", "attributes.error_detail"),
        ("attributes.x", "attributes.attributes.x"),
        (" ", "attributes. "),
    ],
)
def test_an_attribute_is_marked_where_its_name_would_mean_something_else(key: str, column: str) -> None:
    assert guard_key(NAMES, key) == column
    assert build([*NOTES, "id", "email", column], ["", "", "", "1", "a@b.de", "v"])["attributes"] == {key: "v"}


def test_a_renaming_that_was_done_may_be_asked_for_again() -> None:
    """The same `map=` as for the file that the failed rows came from; in any other file it is a mistake."""
    item = build([*NOTES, "id", "email"], ["", "", "", "1", "a@b.de"], **{"Customer Id": "id"})
    assert item == {"id": "1", "email": "a@b.de"}
    with pytest.raises(HeaderError):
        build(["id", "email"], ["1", "a@b.de"], **{"Customer Id": "id"})


@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=4))
def test_a_guarded_file_holds_the_items_of_the_bare_one(rows: list[tuple[str, str]]) -> None:
    """Written out with notes and apostrophes, and read again: not a single character differs."""

    def write(header: list[str], lines: list[list[str]]) -> bytes:
        out = io.StringIO()
        csv.writer(out, lineterminator="\r\n").writerows([header, *lines])
        return out.getvalue().encode()

    form = Form(family=Family.CSV)
    bare = write(["id", "email", "note", "city"], [["1", "a@b.de", *row] for row in rows])
    guarded = write(
        [*NOTES, "id", "email", "note", "city"],
        [["X", "'=1", "0", "1", "a@b.de", *map(neutralize, row)] for row in rows],
    )
    assert read_pieces(bare, form, max_items=9).pieces == read_pieces(guarded, form, max_items=9).pieces
