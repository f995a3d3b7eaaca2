"""Contacts as a destination is to be sent them: what they hold now, and what the destination holds of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import UNSET

from app.kit.postgres.database import Connection
from app.kit.postgres.query import Query
from app.resources import field_states
from app.resources.field_states import ATTRIBUTE
from app.vocabulary.contact_fields import OPTIONAL_FIELDS, STANDARD_FIELDS, SentFields


class ContactState(SentFields, frozen=True, kw_only=True, gc=False):
    """A contact in its current version, and what the destination holds of it.

    A field is `UNSET` where nobody named it, or where the destination knows already that it was cleared;
    `None` if it must be cleared there.
    """

    contact_id: str
    version: int
    attributes: dict[str, Any]
    """A key with None is one that the destination has to clear."""
    synced_version: int
    doubtful: bool
    """It may hold a later version: an answer was lost."""
    doubted_at: float | None
    """When an answer was last lost, by whichever delivery; PostgreSQL's clock, seconds since 1970."""
    refused: bool
    """It refused the last version it was sent."""
    deleted: bool
    """A tombstone: its creation was undone."""
    remote_id: str | None
    """Of its record there, as far as it is known."""
    tried_version: int
    """The version that was last sent, or archived; 0: none."""
    troubled: bool
    """That did not end well, so there may be open dead letters."""
    created: bool | None
    """Whether our call made the record there; `None`: not known, or there is none."""
    not_restored: Mapping[str, int]
    """Names that an undo withdrew, and whose former values there nobody knows, with its version: they stay there as
    they are."""
    not_restored_before: Mapping[str, int]
    """The same as it was found when the destination was sent something before."""
    size: int
    """Characters of its attributes as JSON; only the size of an item limits them."""

    @property
    def archived(self) -> bool:
        """The destination should not have it any more: it is a tombstone, and our call made the record."""
        return self.deleted and self.created is True

    @property
    def left(self) -> bool:
        """A tombstone whose record is not ours to take away."""
        return self.deleted and self.created is not True


_attributes: Final = msgspec.json.Decoder(dict[str, Any]).decode
_not_restored: Final = msgspec.json.Decoder(dict[str, int]).decode


class _LostKeys(msgspec.Struct, frozen=True):
    """Attribute keys that a contact has lost since the version that a destination holds, and those that it holds."""

    contact_id: str
    keys: list[str]
    held: list[str] | None


_read_contacts = Query[[int, int, Sequence[str]], list[dict[str, Any]]]("contacts_to_send")
_read_lost = Query[[int, Sequence[str], Sequence[int]], list[_LostKeys]]("lost_attributes")


async def contacts_to_send(
    connection: Connection, tenant_id: int, destination_id: int, contact_ids: Sequence[str]
) -> dict[str, ContactState]:
    rows = await _read_contacts(connection, tenant_id, destination_id, contact_ids)
    found = {row["contact_id"]: _read(row) for row in rows}
    refused = [s for s in found.values() if s.refused and None in s.attributes.values()]
    if refused:
        await _drop_refused(connection, tenant_id, refused)
    return found


def _read(row: dict[str, Any]) -> ContactState:
    stored = row.pop("attributes")
    attributes = _attributes(stored)
    cleared, withdrawn = row.pop("cleared"), row.pop("withdrawn")
    prior, before = row.pop("prior_version"), row.pop("not_restored")
    row["not_restored_before"] = {} if before is None else _not_restored(before)
    known = field_states.NOTHING
    if cleared is not None or withdrawn is not None:
        fields = [row[name] for name in STANDARD_FIELDS]
        known = field_states.know(fields, attributes, field_states.read_cleared(cleared))
    # What arrived in this very version goes along in a call only where that is made once more, as it was.
    held = prior if row["synced_version"] == row["version"] else row["synced_version"]
    words = field_states.choose_words(
        known,
        field_states.read_withdrawn(withdrawn),
        held=held,
        doubtful=row["doubtful"],
        created=row["created"] is True,
        before=(prior,),
    )
    for name in OPTIONAL_FIELDS:
        if row[name] is None and name not in words.clear:
            row[name] = UNSET
    for name in words.clear:
        if name.startswith(ATTRIBUTE):
            attributes[name.removeprefix(ATTRIBUTE)] = None
    return ContactState(attributes=attributes, not_restored=words.not_restored, size=len(stored), **row)


async def _drop_refused(connection: Connection, tenant_id: int, refused: Sequence[ContactState]) -> None:
    """What a refused version brought never got there, and may be what it was refused for: it is not to be cleared."""
    ids, versions = [s.contact_id for s in refused], [s.synced_version for s in refused]
    lost = await _read_lost(connection, tenant_id, ids, versions)
    never = {row.contact_id: set(row.keys).difference(row.held or ()) for row in lost}
    for state in refused:
        for key in never.get(state.contact_id, ()):
            if key in state.attributes and state.attributes[key] is None:
                del state.attributes[key]
