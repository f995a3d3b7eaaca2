"""Contacts that were in the account before: HubSpot has one contact for an e-mail address.

An upsert by our key of somebody whom HubSpot knows by the address alone is refused (`Contact already exists. Existing
ID: N`, 409, or an error of that input where trace ids were sent). Such a record is adopted: it is read, and if no key
of ours is on it, kept with what it holds (`jobs.crm.port.Keep`) and updated by its record id with everything that an
upsert would have set, our key included.

A batch of which HubSpot has some costs a read, an update and an upsert, and none of them can go: a conflict names
the record, not its key; a batch update creates nobody; a batch upsert refuses the record id as `idProperty` ("Unable to
perform update/upsert by non-unique … property hs_object_id"), and by `email` it overwrites what is not named.

Sources: HubSpot's reference of the contacts batch endpoints, and its guide to contacts ("Partial upserts are not
supported when using `email` as the `idProperty`"); the wording of the conflict from issues of HubSpot's own clients
(hubspot-api-python 51, hubspot-api-nodejs 545), that of the refused record id from segmentio/action-destinations 3957.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from jobs.crm.answers import objects
from jobs.crm.hubspot.fields import Fields
from jobs.crm.matching import Found
from jobs.crm.port import SentRecord

_EXISTING: Final = re.compile(r"already exists\W+Existing ID:\s*(\d+)", re.IGNORECASE)

ADOPT: Final = "tranche destinations change NAME --option match_on=email"


class Sorted(msgspec.Struct, frozen=True):
    """What is to be done with records whose addresses HubSpot may know."""

    adopt: dict[str, Found]
    """Record id → the record that it becomes."""
    refused: dict[str, str]
    """Record id → why it cannot."""


def existing_id(error: Mapping[str, Any]) -> str | None:
    """The record that has the address already; empty where the words do not say which; `None`: no such conflict."""
    words = str(error.get("message"))
    found = _EXISTING.search(words)
    if found is not None:
        return found[1]
    return "" if error.get("category") == "CONFLICT" and "already exists" in words else None


def address(fields: Fields, record: SentRecord) -> str | None:
    """The e-mail address that goes there, as HubSpot keeps it."""
    return fields.properties(record).get("email", "").strip().lower() or None


def found_by_id(body: Mapping[str, Any], key_property: str) -> dict[str, Found]:
    """Record id → contact, from the answer to a read."""
    return {f.remote_id: f for f, _ in _found(body, key_property)}


def found_by_address(body: Mapping[str, Any], key_property: str) -> dict[str, Found]:
    """E-mail address → contact, from the answer to a read."""
    return {email: f for f, email in _found(body, key_property) if email}


def _found(body: Mapping[str, Any], key_property: str) -> Iterable[tuple[Found, str]]:
    for result in objects(body.get("results")):
        values = result.get("properties")
        if result.get("id") is not None and isinstance(values, dict):
            key = values.get(key_property)
            email = str(values.get("email") or "").strip().lower()
            yield Found(str(result["id"]), str(key) if key else None, values), email


def sort_out(pairs: Iterable[tuple[SentRecord, Found]]) -> Sorted:
    """Who may take over whom: nothing is taken from another record of ours, and one there has one here."""
    adopt: dict[str, Found] = {}
    refused: dict[str, str] = {}
    taken: dict[str, str] = {}
    for record, found in pairs:
        here, there = record.record_id, found.remote_id
        owner = found.key or taken.get(there)
        if found.key == here:
            continue  # it is the record itself, and an upsert finds it
        if owner is not None:
            refused[here] = (
                f"HubSpot has one contact for an e-mail address, and this one, record {there}, belongs to your contact "
                f'"{owner}": give one of the two another address, or import them as one'
            )
        elif record.remote_id is not None and record.remote_id != there:
            refused[here] = (
                f"its e-mail address belongs to another HubSpot contact, record {there}, and it is record "
                f"{record.remote_id} itself: merge the two in HubSpot, or give it another address"
            )
        else:
            adopt[here] = found
            taken[there] = here
    return Sorted(adopt, refused)
