"""What belongs to the people at a CRM stays theirs: values in fields that no import named, and records they made."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from tests.chaos.evidence import Evidence, Finding, Findings, Row


def typed_values_survive(e: Evidence) -> Findings:
    """A value that somebody typed into a field that no item ever named is there in the end, unless our undo took the
    record away that our call had made."""
    for crm in e.destinations:
        typed: dict[str, dict[str, Any]] = defaultdict(dict)
        last: dict[str, Row] = {}
        for effect in e.effects.get(crm, []):
            last[effect["id"]] = effect
            if effect.get("by") == "user":
                typed[effect["id"]] |= _never_named(effect["properties"])
        for record, values in typed.items():
            if last[record].get("deleted"):
                continue  # whose it was is the other rule's
            held = _never_named(last[record]["properties"])
            for name, value in values.items():
                if held.get(name) != value:
                    yield Finding(
                        "typed_lost",
                        f"{crm}: {name} of {last[record]['key']} was typed as {value!r}, and is {held.get(name)!r}",
                    )


def _never_named(properties: Row) -> dict[str, Any]:
    """Last names and regions, which no action of a round names."""
    found = properties | (properties.get("attributes") or {})
    names = ("lastname", "LastName", "last_name", "region", "Region__c")
    return {name: found[name] for name in names if found.get(name) not in (None, "", "Nameless")}


def records_of_others_stay(e: Evidence) -> Findings:
    """No record is archived that a call of ours did not make."""
    for crm in e.destinations:
        made: dict[str, str] = {}
        for effect in e.effects.get(crm, []):
            if effect.get("created"):
                made[effect["id"]] = effect.get("by", "api")
            if effect.get("deleted") and effect.get("by", "api") == "api" and made.get(effect["id"]) == "user":
                yield Finding(
                    "archived_foreign",
                    f"{crm}: record {effect['id']} of {effect['key']} was archived, but a user had made it",
                )


def creations_are_known(e: Evidence) -> Findings:
    """Of a record that is said to be made by our call, it is true."""
    for crm, number in e.destinations.items():
        made: dict[str, str] = {}
        for effect in e.effects.get(crm, []):
            if effect.get("created"):
                made[effect["key"]] = effect.get("by", "api")
        for row in e.table("record_syncs"):
            said = row["destination_id"] == number and row.get("created") is True
            if said and made.get(row["record_id"]) != "api":
                yield Finding("believed", f"{crm}: {row['record_id']} is said to be made by us, but a user made it")
