"""Records as a destination is to be sent them: what they hold now, and what the destination holds of them."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from app.deliveries import before_images
from app.deliveries.before_images import FieldBefore
from app.history import queries as history
from app.kit.postgres.database import Connection
from app.kit.postgres.query import Query
from app.resources import documents, field_states
from app.resources.documents import ATTRIBUTE


class RecordState(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A record in its current version, and what the destination holds of it."""

    record_id: str
    version: int
    fields: dict[str, Any]
    """None: to be cleared there. One is absent where nobody named it, or where the destination has cleared it
    already."""
    attributes: dict[str, Any]
    """The same by key."""
    synced_version: int
    doubtful: bool
    """It may hold a later version: an answer was lost."""
    doubted_at: float | None
    """When an answer was last lost, by whichever delivery; PostgreSQL's clock, seconds since 1970."""
    refused: bool
    """It refused the last version it was sent."""
    deleted: bool
    """A tombstone: its creation was undone, or an item deleted it."""
    removed: bool
    """An item did, so it is to be removed there, whoever made it."""
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
    before_image: Sequence[FieldBefore] | None
    """What the record there held before us, if it was adopted."""
    adopted: bool
    """It was, and has not been written to since as far as is known: it does not have our key."""
    restored: Sequence[FieldBefore]
    """What it is to hold again of this: of a tombstone all, else what an undo withdrew."""
    size: int
    """Characters of its document and its before-image; only sizes of an item and of an answer limit them."""

    @property
    def archived(self) -> bool:
        """The destination should not have it any more: an item deleted it, or its creation was undone and our call made
        the record."""
        return self.deleted and (self.removed or self.created is True)

    @property
    def released(self) -> bool:
        """A tombstone whose record was there before us, as it is known to have been: it is to be so again."""
        return self.deleted and not self.archived and self.before_image is not None and self.remote_id is not None

    @property
    def left(self) -> bool:
        """A tombstone whose record is not ours to take away."""
        return self.deleted and not self.archived and not self.released


_not_restored: Final = msgspec.json.Decoder(dict[str, int]).decode
_read_records = Query[[int, int, int, Sequence[str]], list[dict[str, Any]]]("records_to_send")


async def records_to_send(
    connection: Connection, tenant_id: int, destination_id: int, type_id: int, record_ids: Sequence[str]
) -> dict[str, RecordState]:
    rows = await _read_records(connection, tenant_id, destination_id, type_id, record_ids)
    found = {row["record_id"]: _read(row) for row in rows}
    refused = [s for s in found.values() if s.refused and None in s.attributes.values()]
    if refused:
        await _drop_refused(connection, tenant_id, type_id, refused)
    return found


def _read(row: dict[str, Any]) -> RecordState:
    stored = row.pop("document")
    document = documents.read(stored)
    cleared, withdrawn = row.pop("cleared"), row.pop("withdrawn")
    prior, before = row.pop("prior_version"), row.pop("not_restored")
    row["not_restored_before"] = {} if before is None else _not_restored(before)
    known = field_states.NOTHING
    if cleared is not None or withdrawn is not None:
        known = field_states.know(document, field_states.read_cleared(cleared))
    # What arrived in this very version goes along in a call only where that is made once more, as it was.
    held = prior if row["synced_version"] == row["version"] else row["synced_version"]
    kept = row["before_image"]
    image = row["before_image"] = before_images.read(kept)
    if row["adopted"]:
        held = prior = 0  # what we had there before was another record
    words = field_states.choose_words(
        known,
        field_states.read_withdrawn(withdrawn),
        held=held,
        doubtful=row["doubtful"],
        created=row["created"] is True,
        before=(prior,),
    )
    fields = {name: value for name, value in documents.fields_of(document).items() if value is not None}
    attributes = documents.attributes_of(document)
    for name in words.clear:
        if name.startswith(ATTRIBUTE):
            attributes[name.removeprefix(ATTRIBUTE)] = None
        else:
            fields[name] = None
    removed = row["deleted"] and withdrawn is None
    if row["adopted"] and not row["doubtful"] and not row["deleted"]:
        named = {*fields, *(f"{ATTRIBUTE}{key}" for key in attributes)}
        if image is None or not named <= {field.name for field in image}:
            # Nothing was written to it, and what more is to be overwritten by now is not kept: it is looked for anew.
            row["adopted"], row["remote_id"] = False, None
    restored = [f for f in image or () if row["deleted"] or f.name in words.not_restored]
    known_before = {field.name for field in restored}
    return RecordState(
        **row,
        removed=removed,
        fields=fields,
        attributes=attributes,
        not_restored={name: at for name, at in words.not_restored.items() if name not in known_before},
        restored=restored,
        size=len(stored) + len(kept or ""),
    )


async def _drop_refused(connection: Connection, tenant_id: int, type_id: int, refused: Sequence[RecordState]) -> None:
    """What a refused version brought never got there, and may be what it was refused for: it is not to be cleared."""
    past = await history.walk_back(
        connection, tenant_id, type_id, [s.record_id for s in refused], [s.synced_version for s in refused]
    )
    for state in refused:
        held: set[str] = set()
        since: set[str] = set()
        for made in past.get(state.record_id, ()):
            named = documents.attributes_of(documents.read(made.stored.document))
            since.update(named)
            if made.stored.version == state.synced_version:
                held.update(named)
        for key in since - held:
            if key in state.attributes and state.attributes[key] is None:
                del state.attributes[key]
