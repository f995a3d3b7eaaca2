"""The contract's merge semantics once more, in the plainest Python: what the one SQL statement is held against.

Nothing here is shared with the product but the words of the contract.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field, replace
from typing import Any

TEXTS = ("first_name", "last_name", "phone", "company")


@dataclass
class Contact:
    """A contact as it stands, with each of its versions as it was when it was made."""

    version: int = 0
    source_version: int | None = None
    deleted: bool = False
    email: str | None = None
    texts: dict[str, str | None] = field(default_factory=lambda: dict.fromkeys(TEXTS))
    attributes: dict[str, Any] = field(default_factory=dict)
    cleared: set[str] = field(default_factory=set)
    """Names that were cleared, be it long ago or by a removal; destinations that hold a value are to clear them."""
    nulls: set[str] = field(default_factory=set)
    """Names that were cleared since the contact was last created; a null for any other is news to destinations."""
    history: list[tuple[Any, int, Contact]] = field(default_factory=list)
    """(job, item index, the contact then), oldest first."""

    def content(self) -> str:
        return canonical([self.deleted, self.email, self.texts, self.attributes, sorted(self.nulls)])


def canonical(value: Any) -> str:
    """Tells `1` from `true`, as JSON does and Python does not."""
    return json.dumps(value, sort_keys=True)


@dataclass
class Told:
    """What the answer must say of one item."""

    status: str
    word: str
    """The result of an `ok` item, the error code of another."""
    version: int | None = None
    duplicate_of: int | None = None


class Model:
    """Contacts by id, and what batches do to them."""

    def __init__(self) -> None:
        self.contacts: dict[str, Contact] = {}

    def run(
        self, job: Any, items: list[dict[str, Any]], *, atomic: bool, last_wins: bool, dry_run: bool
    ) -> tuple[list[Told], list[tuple[str, int, int]]]:
        """The outcomes, and what destinations are owed: (contact id, version, item index) in item order."""
        outcomes, standing = _settle_duplicates(items, last_wins=last_wins)
        after = copy.deepcopy(self.contacts)
        for index in standing:
            outcomes[index] = _apply(after, job, index, items[index])
        for index, outcome in outcomes.items():
            if outcome.word == "same as":
                assert outcome.duplicate_of is not None
                first = outcomes[outcome.duplicate_of]
                outcomes[index] = replace(first, duplicate_of=outcome.duplicate_of)
            elif outcome.word == "lost to":
                assert outcome.duplicate_of is not None
                winner = outcomes[outcome.duplicate_of]
                word = "superseded" if winner.status == "ok" else winner.word
                outcomes[index] = replace(winner, word=word, duplicate_of=outcome.duplicate_of)
        told = [outcomes[index] for index in range(len(items))]
        if atomic and any(outcome.status != "ok" for outcome in told):
            return [o if o.status != "ok" else Told("failed", "ATOMIC_ABORTED") for o in told], []
        if dry_run:
            return told, []
        self.contacts = after
        changed = [
            (items[i]["id"], o.version or 0, i)
            for i, o in enumerate(told)
            if o.word in ("created", "updated", "deleted") and o.duplicate_of is None
        ]
        return told, changed


def _settle_duplicates(items: list[dict[str, Any]], *, last_wins: bool) -> tuple[dict[int, Told], list[int]]:
    outcomes: dict[int, Told] = {}
    groups: dict[str, list[int]] = {}
    for index, item in enumerate(items):
        if "email" in item or item.get("deleted"):
            groups.setdefault(item["id"], []).append(index)
        else:
            outcomes[index] = Told("failed", "MISSING_FIELD")
    standing = []
    for group in groups.values():
        contents = {canonical(_without_empty_versions(items[i])) for i in group}
        if len(contents) == 1:
            standing.append(group[0])
            outcomes.update((i, Told("", "same as", duplicate_of=group[0])) for i in group[1:])
        elif last_wins:
            standing.append(group[-1])
            outcomes.update((i, Told("", "lost to", duplicate_of=group[-1])) for i in group[:-1])
        else:
            outcomes.update((i, Told("failed", "DUPLICATE_IN_BATCH")) for i in group)
    return outcomes, standing


def _without_empty_versions(item: dict[str, Any]) -> dict[str, Any]:
    """A null version is one that is not given."""
    return {k: v for k, v in item.items() if not (k in ("if_version", "source_version") and v is None)}


def _apply(contacts: dict[str, Contact], job: Any, index: int, item: dict[str, Any]) -> Told:
    old = contacts.get(item["id"])
    wanted, source = item.get("if_version"), item.get("source_version")
    if wanted is not None and wanted != (old.version if old else 0):
        return Told("failed", "VERSION_CONFLICT")
    if old and source is not None and old.source_version is not None and source < old.source_version:
        return Told("ok", "superseded", old.version)
    new = copy.deepcopy(old) if old else Contact()
    new.deleted = item.get("deleted", False)
    if new.deleted:
        _empty(new)
    else:
        _merge(new, item)
    if source is not None:
        new.source_version = source
    contacts[item["id"]] = new
    if old and old.content() == new.content():
        return Told("ok", "unchanged", old.version)
    new.version += 1
    new.history.append((job, index, copy.deepcopy(new)))
    return Told("ok", "deleted" if new.deleted else "updated" if old else "created", new.version)


def _empty(contact: Contact) -> None:
    """A tombstone: whatever had a value is cleared."""
    contact.cleared |= {name for name in TEXTS if contact.texts[name] is not None}
    contact.cleared |= {f"attributes.{key}" for key in contact.attributes}
    if contact.email is not None:
        contact.cleared.add("email")
    contact.email, contact.texts, contact.attributes, contact.nulls = None, dict.fromkeys(TEXTS), {}, set()


def _merge(new: Contact, item: dict[str, Any]) -> None:
    new.email = item["email"]
    new.texts |= {name: item[name] for name in TEXTS if name in item}
    cleared = {name for name in TEXTS if name in item and item[name] is None}
    if "attributes" in item:
        if item["attributes"] is None:
            cleared |= {f"attributes.{key}" for key in new.attributes}
            new.attributes = {}
        else:
            merged = new.attributes | item["attributes"]
            removed = [k for k, v in item["attributes"].items() if v is None]
            cleared |= {f"attributes.{key}" for key in removed}
            new.attributes = {k: v for k, v in merged.items() if k not in removed}
    new.cleared |= cleared
    new.nulls |= cleared
