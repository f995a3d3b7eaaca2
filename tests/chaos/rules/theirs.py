"""What belongs to the people at a CRM stays theirs: values in fields that no import named, and records they made."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, Final

from tests.chaos.evidence import Evidence, Finding, Findings, Row, place_of, shown
from tests.chaos.resources import Place, field_at, types_of
from tests.chaos.rules.there import NAMELESS, flat, is_import

_NEVER_NAMED: Final = {one.name: (one.unnamed, "attributes.region") for one in types_of(0)}


def typed_values_survive(e: Evidence) -> Findings:
    """A value that somebody typed into a field that no item ever named is there in the end, unless our undo took the
    record away that our call had made."""
    for crm in e.destinations:
        typed: dict[Place, dict[str, Any]] = defaultdict(dict)
        last: dict[Place, Row] = {}
        for effect in e.effects.get(crm, []):
            record = (effect["type"], effect["id"])
            last[record] = effect
            if effect.get("by") == "user":
                typed[record] |= _never_named(e.kinds[crm], effect)
        for record, values in typed.items():
            if last[record].get("deleted"):
                continue  # whose it was is the other rule's
            held = _never_named(e.kinds[crm], last[record])
            for name, value in values.items():
                if held.get(name) != value:
                    yield Finding(
                        "typed_lost",
                        f"{crm}: {name} of {shown(place_of(last[record]))} was typed as {value!r}, "
                        f"and is {held.get(name)!r}",
                    )


def _never_named(kind: str, effect: Row) -> dict[str, Any]:
    """What no action of a round names."""
    names = [field_at(kind, effect["type"], name) for name in _NEVER_NAMED[effect["type"]]]
    held = flat(effect["properties"])
    return {name: held[name] for name in names if held.get(name) not in (None, "", NAMELESS)}


def records_of_others_stay(e: Evidence) -> Findings:
    """No record is archived that a call of ours did not make, unless an item deleted it."""
    deleted = {place_of(row) for row in e.table("ledger") if row["deleted"] and is_import(e, row)}
    for crm in e.destinations:
        made: dict[Place, str] = {}
        for effect in e.effects.get(crm, []):
            record = (effect["type"], effect["id"])
            if effect.get("created"):
                made[record] = effect.get("by", "api")
            ours = effect.get("by", "api") == "api" and place_of(effect) not in deleted
            if effect.get("deleted") and ours and made.get(record) == "user":
                yield Finding(
                    "archived_foreign",
                    f"{crm}: record {effect['id']} of {shown(place_of(effect))} was archived, but a user had made it",
                )


def creations_are_known(e: Evidence) -> Findings:
    """Of a record that is said to be made by our call, it is true."""
    for crm, number in e.destinations.items():
        made: dict[Place, str] = {}
        for effect in e.effects.get(crm, []):
            if effect.get("created"):
                made[place_of(effect)] = effect.get("by", "api")
        for row in e.table("record_syncs"):
            said = row["destination_id"] == number and row.get("created") is True
            if said and made.get(place_of(row)) != "api":
                yield Finding("believed", f"{crm}: {shown(place_of(row))} is said to be made by us, but a user made it")
