"""Never named, set, cleared, taken back: what is kept of a contact's names, and what a destination is told of them."""

from __future__ import annotations

import pytest

from app.resources import field_states
from app.resources.field_states import NOTHING, Known, Withdrawn, Words, choose_words, take_back


def known(*named: str, **cleared: int) -> Known:
    return Known(frozenset(("email", *named)), cleared)


def test_names_of_a_contact() -> None:
    found = field_states.know(
        {"email": "a@b.c", "last_name": "L", "phone": None, "attributes.plan": 1}, {"phone": 2, "last_name": 1}
    )
    assert found.named == {"email", "last_name", "attributes.plan"}
    assert found.clear == {"phone": 2}, "what has a value by now is not cleared"
    assert field_states.know({}, {}).named == frozenset(), "a tombstone names nothing"


def test_what_is_cleared_goes_until_it_arrived() -> None:
    cleared = known(phone=3, company=5)
    assert choose_words(cleared, {}, held=4, doubtful=False, created=False) == Words(frozenset({"company"}))
    assert choose_words(cleared, {}, held=0, doubtful=False, created=True).clear == {"phone", "company"}
    assert choose_words(cleared, {}, held=5, doubtful=True, created=True) == Words()


def test_an_undo_gives_names_back_their_former_meaning() -> None:
    """One by one: set before, cleared before, never named before."""
    now = known("first_name", "phone", "company", last_name=4)
    before = known("first_name", "last_name", phone=2)
    cleared, withdrawn = take_back(now, before, {}, version=6, since=5)
    assert cleared == {"phone": 6}, "what has a value at destinations must be cleared anew"
    assert withdrawn == {"company": Withdrawn(6, 5)}


def test_what_was_cleared_and_stays_so_is_no_news() -> None:
    assert take_back(known(phone=2), known(phone=2), {}, version=9, since=8) == ({"phone": 2}, {})


def test_what_an_import_cleared_first_is_withdrawn_too() -> None:
    _, withdrawn = take_back(known(phone=2), known(), {}, version=3, since=2)
    assert withdrawn == {"phone": Withdrawn(3, 2, cleared=2)}


def test_of_an_undone_creation_all_names_are_withdrawn() -> None:
    cleared, withdrawn = take_back(known("attributes.plan", phone=1), NOTHING, {}, version=2, since=1)
    assert cleared == {}
    assert {name: (w.at, w.cleared) for name, w in withdrawn.items()} == {
        "email": (2, 0),
        "attributes.plan": (2, 0),
        "phone": (2, 1),
    }


@pytest.mark.parametrize(
    ("created", "held", "doubtful", "clear", "left"),
    [
        (True, 2, False, {"phone"}, {}),
        (False, 2, False, set(), {"phone": 3, "company": 3}),
        (True, 1, False, set(), {}),
        (False, 1, False, set(), {}),
        (False, 1, True, set(), {"phone": 3, "company": 3}),
        (True, 3, False, set(), {}),
        (False, 3, False, set(), {}),
    ],
    ids=[
        "ours",
        "not ours",
        "ours, never told",
        "not ours, never told",
        "not ours, perhaps told",
        "ours, told already",
        "not ours, told already",
    ],
)
def test_what_a_destination_is_told_of_withdrawn_names(
    created: bool, held: int, doubtful: bool, clear: set[str], left: dict[str, int]
) -> None:
    """Version 2 set the phone and cleared the company, version 3 took both back."""
    withdrawn = {"phone": Withdrawn(3, 2), "company": Withdrawn(3, 2, cleared=2)}
    words = choose_words(known(), withdrawn, held=held, doubtful=doubtful, created=created)
    assert (words.clear, words.not_restored) == (clear, left)


@pytest.mark.parametrize(
    ("held", "before", "clear"),
    [
        (3, 2, set()),  # told the first time, and of the undo
        (2, 1, set()),  # told the first time, and not of the undo
        (3, 1, {"phone"}),  # the undo came first
        (1, 0, {"phone"}),
        (3, 3, {"phone"}),  # nobody knows any more
        (4, 3, set()),
    ],
)
def test_what_an_undone_undo_clears_again_goes_where_it_never_was(held: int, before: int, clear: set[str]) -> None:
    """Version 2 cleared the phone, version 3 took that back, version 4 took that back in turn."""
    cleared, withdrawn = take_back(known(phone=2), known(), {}, version=3, since=2)
    assert (cleared, withdrawn) == ({}, {"phone": Withdrawn(3, 2, cleared=2)})
    cleared, withdrawn = take_back(known(), known(phone=2), withdrawn, version=4, since=3)
    assert (cleared, withdrawn) == ({"phone": 4}, {"phone": Withdrawn(3, 2, cleared=2, again=4)})
    words = choose_words(known(**cleared), withdrawn, held=held, doubtful=False, created=False, before=(before,))
    assert words == Words(frozenset(clear))
    # Once it had a value in between, it is cleared as ever.
    words = choose_words(known(phone=6), withdrawn, held=5, doubtful=False, created=False, before=(2,))
    assert words == Words(frozenset({"phone"}))


def test_what_was_set_and_cleared_again_is_cleared_where_only_the_first_arrived() -> None:
    """Version 2 cleared it, 3 set it, 4 took that back, 5 took back the first; the destination has heard of 3."""
    _, withdrawn = take_back(known(phone=4), known(), {}, version=5, since=2)
    ours = choose_words(known(), withdrawn, held=3, doubtful=False, created=True)
    assert ours == Words(frozenset({"phone"}))
    assert choose_words(known(), withdrawn, held=4, doubtful=False, created=True) == Words()


def test_what_earlier_releases_stored_is_cleared_again() -> None:
    withdrawn = field_states.read_withdrawn('{"phone": {"at": 3, "since": 2, "cleared": true}}')
    cleared, withdrawn = take_back(known(), known(phone=2), withdrawn, version=4, since=3)
    words = choose_words(known(**cleared), withdrawn, held=3, doubtful=False, created=False, before=(2,))
    assert words == Words(frozenset({"phone"}))


def test_what_was_named_again_is_not_withdrawn_any_more() -> None:
    withdrawn = {"phone": Withdrawn(3, 2), "company": Withdrawn(3, 2)}
    words = choose_words(known("phone", company=4), withdrawn, held=2, doubtful=False, created=False)
    assert words == Words(frozenset({"company"}))


def test_both_writers_of_what_is_cleared_are_understood() -> None:
    """PostgreSQL writes versions as strings, Python as numbers."""
    assert field_states.read_cleared('{"phone": "3", "company": 4}') == {"phone": 3, "company": 4}
    assert field_states.read_cleared(None) == {}
