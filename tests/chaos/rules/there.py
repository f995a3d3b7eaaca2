"""What happened at the CRMs: each version at most once, never backwards, and the newest in the end."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Final

from tests.chaos.evidence import Evidence, Finding, Findings, Row

STANDARD: Final = {
    "hubspot": ("email", "firstname", "lastname", "phone", "company", "tranche_id"),
    "salesforce": ("Email", "FirstName", "LastName", "Phone", "Company__c", "Tranche_Id__c"),
    "http": ("email", "first_name", "last_name", "phone", "company", "id"),
}
"""By kind of CRM, its names of our fields."""
_LACKING: Final = re.compile(r"does not exist|No such column|external ID field")
"""In the vendors' words: the account has no such field."""
_WINDOW: Final = 6.0
"""Seconds before an opening in which the calls were made that it came from."""
NAMELESS: Final = "Nameless"
"""Last name that Salesforce is given for a new record where there is none (an option of the destination)."""


def record_of(kind: str, row: Row) -> Row | None:
    """What a CRM should hold of a contact or a ledger row, beside what others typed; `None`: nothing, it is a
    tombstone."""
    if row["deleted"]:
        return None
    fields = ("email", "first_name", "last_name", "phone", "company", "record_id")
    found = {theirs: row[ours] for ours, theirs in zip(fields, STANDARD[kind], strict=True)}
    if kind == "http":
        found |= {"attributes": row["attributes"], "version": row["version"]}
    elif kind == "salesforce":
        found |= {f"{name}__c": value for name, value in row["attributes"].items()}
    else:
        found |= {name.lower(): str(value) for name, value in row["attributes"].items() if value is not None}
    return _filled(found)


def held_of(effect: Row) -> Row | None:
    """What the CRM held after an effect."""
    return None if effect.get("deleted") else _filled(effect["properties"])


def fits(wanted: Row | None, held: Row | None) -> bool:
    """Whether a CRM holds what was set of a version; what nobody named there is not ours."""
    if wanted is None or held is None:
        return wanted is held
    there = held | {"attributes": {}} | {k: v for k, v in held.items() if isinstance(v, dict)}
    return all(
        value.items() <= there[name].items() if isinstance(value, dict) else there.get(name) == value
        for name, value in wanted.items()
    )


def cleared_of(kind: str, row: Row) -> list[str]:
    """Names at the CRM of what was cleared in a contact, and must be empty there."""
    ours = ("email", "first_name", "last_name", "phone", "company")
    theirs = dict(zip(ours, STANDARD[kind], strict=False))
    found = []
    for name in row.get("cleared") or {}:
        key = name.removeprefix("attributes.")
        if key == name and row[name] is None:
            found.append(theirs[name])
        elif key != name and key not in row["attributes"]:
            found.append({"salesforce": f"{key}__c", "hubspot": key.lower()}.get(kind, key))
    return found


def _has(held: Row, name: str) -> bool:
    return name in held or name in held.get("attributes", {})


def _left(e: Evidence, crm: str, number: int, record_id: str) -> bool:
    """Whether the record of a tombstone may be there still: a user made it, or Tranche says what is not restored."""
    makers = [
        effect.get("by", "api")
        for effect in e.effects.get(crm, [])
        if effect["key"] == record_id and effect.get("created")
    ]
    return makers[-1:] == ["user"] or any(
        row["destination_id"] == number and row["record_id"] == record_id and row.get("not_restored")
        for row in e.table("record_syncs")
    )


def _filled(record: Row) -> Row:
    found = {name: value for name, value in record.items() if value not in (None, "")}
    if isinstance(found.get("attributes"), dict):
        found["attributes"] = {name: value for name, value in found["attributes"].items() if value is not None}
    return found


def histories(e: Evidence, crm: str) -> Iterator[tuple[str, list[Row], list[int | None]]]:
    """Of each contact at a CRM: its effects in order, and which version each of them was.

    The smallest version with this content that is not older than the one before; `None`: there is none. An undo makes
    new versions of old contents: what changed nothing is the next of these, if there is one.
    """
    kind = e.kinds.get(crm, "hubspot")
    by_key: dict[str, list[Row]] = defaultdict(list)
    for effect in e.effects.get(crm, []):
        if effect.get("by") != "user":
            by_key[effect["key"]].append(effect)
    for key, effects in by_key.items():
        versions = [(row["version"], record_of(kind, row)) for row in e.ledger.get(key, [])]
        found: list[int | None] = []
        newest = 0
        for effect in effects:
            held = held_of(effect)
            fitting = [v for v, record in versions if v >= newest and fits(record, held)]
            version = fitting[0] if fitting else None
            # What is cleared first, and what an undo takes back, changes a record without bringing anything new.
            if version == newest and len(fitting) > 1:
                version = fitting[1]
            found.append(version)
            newest = newest if version is None else version
        yield key, effects, found


def _mark_of(effect: Row) -> object:
    """Which item's content an effect brought."""
    properties = effect["properties"]
    return (
        "gone"
        if effect.get("deleted")
        else (properties.get("attributes") or properties).get("mark", properties.get("mark__c"))
    )


def nothing_is_made_up(e: Evidence) -> Findings:
    """A value in a field of ours is that of some version, or somebody typed it."""
    for crm in e.destinations:
        kind = e.kinds.get(crm, "hubspot")
        typed: dict[tuple[str, str], set[object]] = defaultdict(set)
        for effect in e.effects.get(crm, []):
            key, held = effect["key"], held_of(effect) or {}
            if effect.get("by") == "user":
                for name in STANDARD[kind]:
                    typed[key, name].add(held.get(name))
                continue
            for name in STANDARD[kind]:
                known = typed[key, name] | {(record_of(kind, v) or {}).get(name) for v in e.ledger.get(key, [])}
                if name in held and held[name] not in known | {NAMELESS}:
                    yield Finding("never_stood", f"{crm}: {name} of {key} became {held[name]!r}, which nobody said")


def effects_are_single(e: Evidence) -> Findings:
    """What a CRM holds is a version of the contact, never an older one than before, and each is sent but once."""
    for crm in e.destinations:
        kind = e.kinds.get(crm, "hubspot")
        for key, effects, found in histories(e, crm):
            told = [(_mark_of(x), version) for x, version in zip(effects, found, strict=True)]
            counts = Counter(v for x, v in zip(effects, found, strict=True) if x["changed"] and v is not None)
            for version, count in counts.items():
                if count > 1:
                    yield Finding("doubled", f"{crm}: version {version} of {key} took effect {count} times: {told}")
            for effect, version, before in zip(effects, found, [None, *found], strict=False):
                if version is None:
                    older = any(fits(record_of(kind, row), held_of(effect)) for row in e.ledger.get(key, []))
                    yield Finding(
                        "went_back" if older else "never_stood",
                        f"{crm}: effect {effect['seq']} on {key} is {effect['properties']}; it went {told}",
                    )
                elif not effect["changed"] and version == before:
                    yield Finding(
                        "sent_again",
                        f"{crm}: call {effect['call']} sent version {version} of {key} though it was there: {told}",
                    )


def destinations_hold_the_contacts(e: Evidence) -> Findings:
    """In the end each CRM holds each contact as it stands, or a dead letter says why not."""
    given_up = {
        (row["destination_id"], row["record_id"], row["version"])
        for row in e.table("dead_letters")
        if row.get("resolution") is None
    }
    for crm, number in e.destinations.items():
        kind = e.kinds.get(crm, "hubspot")
        last = {effect["key"]: held_of(effect) for effect in e.effects.get(crm, [])}
        for record_id, contact in e.contacts.items():
            if (number, record_id, contact["version"]) in given_up:
                continue
            wanted, held = record_of(kind, contact), last.get(record_id)
            if wanted is None and held is not None and _left(e, crm, number, record_id):
                continue
            kept = [name for name in cleared_of(kind, contact) if wanted and held and _has(held, name)]
            if kept or not fits(wanted, held):
                yield Finding(
                    "not_there",
                    f"{crm} holds {held} of {record_id}; version {contact['version']} is {wanted}"
                    + (f", without {', '.join(kept)}" if kept else ""),
                )
        typed = {effect["key"] for effect in e.effects.get(crm, []) if effect.get("by") == "user"}
        for record_id in last.keys() - e.contacts.keys() - typed:
            yield Finding("never_stood", f"{crm} holds {record_id}, which is no contact")


def refused_there_is_not_there(e: Evidence) -> Findings:
    """A contact whose only delivery was refused by the CRM had no effect there."""
    named: dict[tuple[int, str], list[tuple[Row, int]]] = defaultdict(list)
    for d in e.table("deliveries"):
        for position, record_id in enumerate(d["record_ids"]):
            named[d["destination_id"], record_id].append((d, position))
    for (number, record_id), deliveries in named.items():
        crm = e.crm_of.get(number, "")
        delivery, position = deliveries[0]
        if len(deliveries) == 1 and delivery["states"][position] == "f":
            found = [x["seq"] for x in e.effects.get(crm, []) if x["key"] == record_id and x.get("by") != "user"]
            if found:
                yield Finding("refused_but_done", f"{crm} refused {record_id} for good, but has its effects {found}")


def syncs_are_true(e: Evidence) -> Findings:
    """What Tranche believes a CRM to hold is there, or something newer is."""
    for crm, number in e.destinations.items():
        kind = e.kinds.get(crm, "hubspot")
        last = {effect["key"]: held_of(effect) for effect in e.effects.get(crm, [])}
        for row in e.table("record_syncs"):
            if row["destination_id"] != number:
                continue
            held = last.get(row["record_id"])
            fitting = [
                v["version"]
                for v in e.ledger.get(row["record_id"], [])
                if fits(record_of(kind, v), held) or (v["deleted"] and row.get("created") is not True)
            ]
            if row["synced_version"] > max(fitting, default=0):
                yield Finding(
                    "believed",
                    f"{crm} is said to hold version {row['synced_version']} of {row['record_id']}, but holds {held}",
                )


def crms_are_spared(e: Evidence) -> Findings:
    """A CRM that is down is left alone after some calls: its circuit opens."""
    for crm in e.destinations:
        seconds = sum(
            f["seconds"] for f in e.faults if f["target"] == crm and f.get("details", {}).get("fault") == "down"
        )
        struck = sum("down" in call["faults"] for call in e.calls.get(crm, []))
        # Without Redis each worker counts for itself.
        alone = any(f["target"] == "redis" for f in e.faults)
        most = (40 if alone else 25) + (20 if alone else 10) * seconds
        if struck > most:
            yield Finding(
                "hammered", f"{crm} was called {struck} times in {seconds:g} s while it was down; {most:g} would do"
            )


def accounts_are_blamed_once(e: Evidence) -> Findings:
    """What an account lacks is no contact's fault: it holds the destination after a few calls, and buries nothing."""
    for dead_letter in e.table("dead_letters"):
        if _LACKING.search(dead_letter.get("error_detail") or ""):
            yield Finding(
                "buried_for_setup",
                f"{dead_letter['record_id']} was given up for what the account lacks: {dead_letter['error_detail']}",
            )
    for crm in e.destinations:
        lost = [f for f in e.faults if f["target"] == crm and f.get("details", {}).get("fault") == "missing_fields"]
        struck = sum("missing_fields" in call["faults"] and call["on"] == "write" for call in e.calls.get(crm, []))
        # Eight calls may be under way when it begins. Then it is held, and probed: a pair of calls each time. Without
        # Redis each worker holds it by itself.
        alone = any(f["target"] == "redis" for f in e.faults)
        most = (10 + 8 * sum(f["seconds"] for f in lost)) * (2 if alone else 1)
        if struck > most:
            yield Finding(
                "hammered_for_setup", f"{crm} lacked a field, and was called {struck} times; {most:g} would do"
            )


def neighbours_hold_up_nobody(e: Evidence) -> Findings:
    """What tenants share at a CRM opens only when calls of more than one of them fail: this one's too, that is."""
    # A worker that was killed has not written down what its last calls met.
    if {f["target"] for f in e.faults} & {"w1", "w2", "postgres"}:
        return
    for opening in e.table("shared_openings"):
        failed = [
            call
            for call in e.table("bad_calls")
            if opening["at"] - _WINDOW <= call["sent_at"] <= opening["at"] and (call["status"] or 500) >= 500
        ]
        if not failed:
            yield Finding(
                "held_by_neighbour",
                f"all calls to a CRM were held back from {opening['at']:.2f} on, and none of this tenant's had failed",
            )


def refusals_are_heeded(e: Evidence) -> Findings:
    """What a CRM refuses for good is not sent again by the same delivery."""
    pending: Counter[tuple[str, str]] = Counter()
    for d in e.table("deliveries"):
        pending[e.crm_of.get(d["destination_id"], ""), d["request_id"]] += 1
    for crm in e.destinations:
        refused = Counter(call["request_id"] for call in e.calls.get(crm, []) if "reject" in call["faults"])
        for request_id, count in refused.items():
            # One whose answer was lost on the way may be sent and refused once more.
            if count > 3 * pending[crm, request_id]:
                yield Finding(
                    "refused_again",
                    f"{crm} refused {count} calls of request {request_id}: {pending[crm, request_id]} deliveries",
                )
