"""What happened at the CRMs: each version at most once, never backwards, and the newest in the end."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Final

from tests.chaos.evidence import Evidence, Finding, Findings, Row, place_of, shown
from tests.chaos.resources import KEYS, Place, field_at, value_at

_LACKING: Final = re.compile(r"does not exist|No such column|external ID field")
"""In the vendors' words: the account has no such field."""
_WINDOW: Final = 6.0
"""Seconds before an opening in which the calls were made that it came from."""
NAMELESS: Final = "Nameless"
"""Last name that Salesforce is given for a new record where there is none (an option of the destination)."""


def record_of(kind: str, row: Row) -> Row | None:
    """What a CRM should hold of a record or a ledger row, beside what others typed, as `flat` has it; `None`: nothing,
    it is a tombstone."""
    if row["deleted"]:
        return None
    named = row["fields"] | {f"attributes.{name}": value for name, value in row["attributes"].items()}
    found = {field_at(kind, row["type"], name): value_at(kind, v) for name, v in named.items() if v is not None}
    return flat(found | {KEYS[kind]: row["record_id"]} | ({"version": row["version"]} if kind == "http" else {}))


def held_of(effect: Row) -> Row | None:
    """What the CRM held after an effect."""
    return None if effect.get("deleted") else flat(effect["properties"])


def flat(record: Row) -> Row:
    """What it has a value of; attributes that are an object of their own by `attributes.` and their key."""
    found = {name: value for name, value in record.items() if name != "attributes"}
    found |= {f"attributes.{name}": value for name, value in (record.get("attributes") or {}).items()}
    return {name: value for name, value in found.items() if value not in (None, "")}


def fits(wanted: Row | None, held: Row | None) -> bool:
    """Whether a CRM holds what was set of a version; what nobody named there is not ours."""
    if wanted is None or held is None:
        return wanted is held
    return all(name in held and held[name] == value for name, value in wanted.items())


def is_import(e: Evidence, row: Row) -> bool:
    """Whether an item made this version, and no undo."""
    return e.jobs.get(row["job_id"], {}).get("kind") == "import"


def _left(e: Evidence, crm: str, record: Row) -> bool:
    """Whether the record of a tombstone may be there still: a user made it, or Tranche says what is not restored. Where
    an item deleted it, only if no call of ours came to it since."""
    place = place_of(record)
    effects = [effect for effect in e.effects.get(crm, []) if place_of(effect) == place]
    makers = [(n, effect.get("by", "api")) for n, effect in enumerate(effects) if effect.get("created")]
    if makers and makers[-1][1] == "user":
        touched = any(effect.get("by", "api") == "api" for effect in effects[makers[-1][0] :])
        return not (touched and is_import(e, e.ledger[place][-1]))
    return any(
        row["destination_id"] == e.destinations[crm] and place_of(row) == place and row.get("not_restored")
        for row in e.table("record_syncs")
    )


def _typed(e: Evidence, crm: str) -> dict[tuple[Place, str], set[object]]:
    """By record and field, all that people ever typed there."""
    found: dict[tuple[Place, str], set[object]] = defaultdict(set)
    for effect in e.effects.get(crm, []):
        if effect.get("by") == "user":
            for name, value in flat(effect["properties"]).items():
                found[place_of(effect), name].add(repr(value))
    return found


def histories(e: Evidence, crm: str) -> Iterator[tuple[Place, list[Row], list[int | None]]]:
    """Of each record at a CRM: its effects in order, and which version each of them was.

    The smallest version with this content that is not older than the one before; `None`: there is none. An undo makes
    new versions of old contents: what changed nothing is the next of these, if there is one.
    """
    kind = e.kinds[crm]
    by_place: dict[Place, list[Row]] = defaultdict(list)
    for effect in e.effects.get(crm, []):
        if effect.get("by") != "user":
            by_place[place_of(effect)].append(effect)
    for place, effects in by_place.items():
        versions = [(row["version"], record_of(kind, row)) for row in e.ledger.get(place, [])]
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
        yield place, effects, found


def _mark_of(effect: Row) -> object:
    """Which item's content an effect brought."""
    properties = effect["properties"]
    return (
        "gone"
        if effect.get("deleted")
        else (properties.get("attributes") or properties).get("mark", properties.get("mark__c"))
    )


def _remade(e: Evidence, crm: str) -> set[int]:
    """Effects that removed what a user had made anew since the effect of ours before."""
    made_by: dict[Place, bool] = {}
    """Whether a user made it since the last effect of ours."""
    found: set[int] = set()
    for effect in e.effects.get(crm, []):
        place = place_of(effect)
        if effect.get("by") == "user":
            if place in made_by and effect.get("created"):
                made_by[place] = True
            continue
        if made_by.get(place) and effect.get("deleted"):
            found.add(effect["seq"])
        made_by[place] = False
    return found


def nothing_is_made_up(e: Evidence) -> Findings:
    """Each value of a record is that of some version, or somebody typed it."""
    for crm in e.destinations:
        kind, typed = e.kinds[crm], _typed(e, crm)
        said: dict[tuple[Place, str], set[object]] = defaultdict(set)
        for place, rows in e.ledger.items():
            for row in rows:
                for name, value in (record_of(kind, row) or {}).items():
                    said[place, name].add(repr(value))
        for effect in e.effects.get(crm, []):
            place = place_of(effect)
            for name, value in (held_of(effect) or {}).items():
                if repr(value) not in typed[place, name] | said[place, name] and value != NAMELESS:
                    yield Finding("never_stood", f"{crm}: {name} of {shown(place)} became {value!r}, which nobody said")


def effects_are_single(e: Evidence) -> Findings:
    """What a CRM holds is a version of the record, never an older one than before, and each is sent but once."""
    for crm in e.destinations:
        kind, remade = e.kinds[crm], _remade(e, crm)
        for place, effects, found in histories(e, crm):
            told = [(_mark_of(x), version) for x, version in zip(effects, found, strict=True)]
            counts = Counter(
                v
                for x, v in zip(effects, found, strict=True)
                if x["changed"] and v is not None and x["seq"] not in remade
            )
            for version, count in counts.items():
                if count > 1:
                    yield Finding(
                        "doubled", f"{crm}: version {version} of {shown(place)} took effect {count} times: {told}"
                    )
            for effect, version, before in zip(effects, found, [None, *found], strict=False):
                if version is None:
                    older = any(fits(record_of(kind, row), held_of(effect)) for row in e.ledger.get(place, []))
                    yield Finding(
                        "went_back" if older else "never_stood",
                        f"{crm}: effect {effect['seq']} on {shown(place)} is {effect['properties']}; it went {told}",
                    )
                elif not effect["changed"] and version == before:
                    yield Finding(
                        "sent_again",
                        f"{crm}: call {effect['call']} sent version {version} of {shown(place)} "
                        f"though it was there: {told}",
                    )


def destinations_hold_the_records(e: Evidence) -> Findings:
    """In the end each CRM holds each record of the types that it takes as it stands, or a dead letter says why not."""
    given_up = {
        (row["destination_id"], place_of(row), row["version"])
        for row in e.table("dead_letters")
        if row.get("resolution") is None
    }
    for crm, number in e.destinations.items():
        kind, typed = e.kinds[crm], _typed(e, crm)
        last = {place_of(effect): held_of(effect) for effect in e.effects.get(crm, [])}
        not_restored = {
            (place_of(row), field_at(kind, row["type"], name))
            for row in e.table("record_syncs")
            for name in row.get("not_restored") or {}
            if row["destination_id"] == number
        }
        for place, record in e.records.items():
            if (number, place, record["version"]) in given_up or not e.takes(crm, record["type"]):
                continue
            wanted, held = record_of(kind, record), last.get(place)
            if wanted is None and held is not None and _left(e, crm, record):
                continue
            # What an earlier version brought is gone, unless nobody knows what an undo would have to restore.
            kept = [
                name
                for name, value in (held or {}).items()
                if wanted is not None and name not in wanted and (place, name) not in not_restored
                if repr(value) not in typed[place, name] and value != NAMELESS
            ]
            if kept or not fits(wanted, held):
                yield Finding(
                    "not_there",
                    f"{crm} holds {held} of {shown(place)}; version {record['version']} is {wanted}"
                    + (f", without {', '.join(kept)}" if kept else ""),
                )
        people = {place_of(effect) for effect in e.effects.get(crm, []) if effect.get("by") == "user"}
        for place in last.keys() - e.records.keys() - people:
            yield Finding("never_stood", f"{crm} holds {shown(place)}, which is no record")


def refused_there_is_not_there(e: Evidence) -> Findings:
    """A record whose only delivery was refused by the CRM had no effect there."""
    named: dict[tuple[int, Place], list[tuple[Row, int]]] = defaultdict(list)
    for d in e.table("deliveries"):
        for position, record_id in enumerate(d["record_ids"]):
            named[d["destination_id"], (d["type"], record_id)].append((d, position))
    for (number, place), deliveries in named.items():
        crm = e.crm_of.get(number, "")
        delivery, position = deliveries[0]
        if len(deliveries) == 1 and delivery["states"][position] == "f":
            effects = [x for x in e.effects.get(crm, []) if place_of(x) == place and x.get("by") != "user"]
            if effects:
                found = [x["seq"] for x in effects]
                yield Finding("refused_but_done", f"{crm} refused {shown(place)} for good, but has its effects {found}")


def syncs_are_true(e: Evidence) -> Findings:
    """What Tranche believes a CRM to hold is there, or something newer is."""
    for crm, number in e.destinations.items():
        kind = e.kinds[crm]
        last = {place_of(effect): held_of(effect) for effect in e.effects.get(crm, [])}
        for row in e.table("record_syncs"):
            if row["destination_id"] != number:
                continue
            place = place_of(row)
            held = last.get(place)
            fitting = [
                v["version"]
                for v in e.ledger.get(place, [])
                if fits(record_of(kind, v), held) or (v["deleted"] and row.get("created") is not True)
            ]
            if row["synced_version"] > max(fitting, default=0):
                yield Finding(
                    "believed",
                    f"{crm} is said to hold version {row['synced_version']} of {shown(place)}, but holds {held}",
                )


def crms_are_spared(e: Evidence) -> Findings:
    """A CRM that is down is left alone after some calls: its circuit opens."""
    for crm in e.destinations:
        seconds = sum(
            f["seconds"] for f in e.faults if f["target"] == crm and f.get("details", {}).get("fault") == "down"
        )
        down = ["down" in call["faults"] for call in e.calls.get(crm, [])]
        struck = sum(down)
        # The circuit opens when half of the calls in its window have failed: as many as went well before. Some more are
        # under way then. Without Redis each worker counts for itself.
        well = down.index(True) if struck else 0
        alone = any(f["target"] == "redis" for f in e.faults)
        most = (40 if alone else 25) + max(0, well - 10) + (20 if alone else 10) * seconds
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
                f"{shown(place_of(dead_letter))} was given up for what the account lacks: "
                f"{dead_letter['error_detail']}",
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
            if opening["at"] - _WINDOW <= call["sent_at"] <= opening["at"]
            # With 200 an answer that broke off, or could not be read.
            if call["status"] in (None, 200) or call["status"] >= 500
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
