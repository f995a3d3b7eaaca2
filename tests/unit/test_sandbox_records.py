"""The records of a stand-in CRM: an id is given once, also by a process that was started again."""

from __future__ import annotations

from jobs.crm.sandbox.ledger import Effect
from jobs.crm.sandbox.records import Records


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
