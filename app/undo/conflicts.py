"""Records that an undo left as they are, because somebody changed them since: each is a dead letter.

The dead letter has all that a replay needs, also when the versions are no longer kept: what the record held before the
undone item, and the version that was found in its place. A replay restores the record from that version alone. If it
was changed again, it is left again, and a new dead letter of the same chain names that change.
"""

import uuid

import msgspec
from msgspec import UNSET, UnsetType

from app.history.versions import Place, StoredVersion
from app.undo.queries import Change, CurrentVersion, Maker
from app.vocabulary.states import JobKind


class ChangedBy(msgspec.Struct, frozen=True, kw_only=True):
    """The version that a record has since, and who made it."""

    version: int
    source_version: int | None
    job_id: uuid.UUID
    item_index: int
    kind: JobKind
    key_id: str
    request_id: str

    def is_still(self, current: CurrentVersion) -> bool:
        """Whether nobody changed the record again; an erased one that was imported anew is another record."""
        found = (current.version, current.source_version, current.job_id, current.item_index)
        return found == (self.version, self.source_version, self.job_id, self.item_index)


class Before(msgspec.Struct, frozen=True, kw_only=True):
    """What a record held before the undone item."""

    job_id: uuid.UUID
    """Who had made that."""
    source_version: int | None
    document: msgspec.Raw
    cleared: msgspec.Raw


class Conflict(msgspec.Struct, frozen=True, kw_only=True):
    """The column `dead_letters.conflict`."""

    job_id: uuid.UUID
    """That was undone."""
    item_index: int
    """Of it."""
    source_version: int | None
    """That this item left."""
    changed_by: ChangedBy
    before: Before | UnsetType | None = UNSET
    """`None`: the item created the record. Absent: the record was erased since."""

    def change(self, record_id: str, version: int) -> Change:
        """The undone item, which made this version; its own document plays no part in taking it back."""
        stored = StoredVersion(record_id, version, self.source_version, False, msgspec.Raw(b"{}"), msgspec.Raw(b"null"))
        return Change(self.item_index, stored, None)

    @property
    def made_by(self) -> Place | None:
        """Who had made what a replay restores; which of its items plays no part."""
        return (self.before.job_id, 0) if isinstance(self.before, Before) else None

    def restored(self, record_id: str) -> StoredVersion | None:
        """What a replay restores; `None`: nothing, the record is removed."""
        if not isinstance(self.before, Before):
            return None
        before = self.before
        return StoredVersion(record_id, 0, before.source_version, False, before.document, before.cleared)


def describe(
    of: uuid.UUID,
    change: Change,
    current: CurrentVersion,
    maker: Maker,
    before: StoredVersion | None,
    made_by: Place | None,
) -> Conflict:
    """`made_by`: who had made the version `before` the change."""
    return Conflict(
        job_id=of,
        item_index=change.item_index,
        source_version=change.stored.source_version,
        changed_by=ChangedBy(
            version=current.version,
            source_version=current.source_version,
            job_id=current.job_id,
            item_index=current.item_index,
            kind=JobKind(maker.kind),
            key_id=maker.key_id,
            request_id=maker.request_id,
        ),
        before=None
        if before is None or made_by is None
        else Before(
            job_id=made_by[0], source_version=before.source_version, document=before.document, cleared=before.cleared
        ),
    )
