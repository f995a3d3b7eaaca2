"""The records of a stand-in CRM: an id is given once, also by a process that was started again."""

from __future__ import annotations

import tracemalloc

from app.sandbox.ledger import Effect
from app.sandbox.records import Records


def effect(number: int) -> Effect:
    """One on the record `rNUMBER`, as its ledger has it."""
    return Effect(
        seq=number,
        at="2026-01-14T08:00:00.000Z",
        call=1,
        request_id="",
        portal="p",
        key_property="k",
        key=f"old{number}",
        id=f"r{number}",
        properties={},
        changed=True,
        created=False,
        deleted=number == 4,
    )


def test_no_id_of_the_file_is_given_again() -> None:
    """A file that was emptied meanwhile begins with any number, and a record that is gone keeps its id."""
    records = Records(lambda number: f"r{number}")
    records.restore(effect(number) for number in (2, 3, 4, 7))
    made = [records.upsert("p", "k", f"new{n}", {}, "2026-01-14T08:00:01.000Z")[0].id for n in range(6)]
    assert made == ["r0", "r1", "r5", "r6", "r8", "r9"]


def changed(records: Records, key: str, email: str) -> None:
    records.upsert("p", "k", key, {"email": email}, "2026-01-14T08:00:01.000Z")


def test_values_that_a_record_had_before_are_forgotten() -> None:
    """Contacts whose address changes again and again, and is searched for every time, as HubSpot does."""
    records = Records(str)
    held = []
    tracemalloc.start()
    try:
        for number in range(6_000):
            email = f"a{number}@example.com"
            assert records.find("p", email, "email") is None
            changed(records, "c1", email)
            if number % 3_000 == 2_999:
                held.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert held[1] - held[0] < 50_000


def test_of_records_with_one_value_those_that_have_it_still_are_found() -> None:
    records = Records(str)
    assert records.find("p", "a@example.com", "email") is None
    for key in ("c1", "c2", "c3"):
        changed(records, key, "a@example.com")

    def found() -> str | None:
        record = records.find("p", "a@example.com", "email")
        return None if record is None else record.key

    assert found() == "c1"
    changed(records, "c1", "b@example.com")
    assert found() == "c2"
    records.delete("p", records.upsert("p", "k", "c2", {}, "now")[0].id)
    assert found() == "c3"
    changed(records, "c3", "")
    assert found() is None
    changed(records, "c1", "a@example.com")
    assert found() == "c1"
