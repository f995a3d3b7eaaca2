"""The items of one batch on their way from bytes to outcomes."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final

import msgspec
from msgspec import UNSET

from app.files.workbook.addresses import Grid
from app.history.versions import NewVersion
from app.imports.batch import duplicates
from app.imports.batch.duplicates import Batch
from app.resources import decoding
from app.resources.declaration import Resource
from app.resources.decoding import Accepted, Effort, Noted, Piece, Rejected, UnreadablePiece
from app.vocabulary import outcomes_wire
from app.vocabulary.outcomes_wire import FieldError, ItemOutcome, ItemWarning
from app.vocabulary.states import ErrorCode, ItemStatus, Result

PART: Final = 334
"""Items of a part. While PostgreSQL works on one part the next is read, so that one of two cores does not idle."""
WHOLE: Final = 1_000
"""Items of a part where all had to be read first."""
_SLICE: Final = 50
"""Items that are read at a time, at most."""
_READABLE: Final = frozenset({bytes, msgspec.Raw})
"""Types of the pieces of a batch in which all can be read and nothing was noticed: nearly every one."""
_STEP: Final = 32_768
"""Effort after which others may have their turn: some milliseconds."""


class Undecided(msgspec.Struct, frozen=True):
    """Why nothing could be decided this time."""

    code: ErrorCode
    detail: str


LOCKED: Final = Undecided(ErrorCode.LOCK_TIMEOUT, "other writers hold these records")
BROKEN: Final = Undecided(ErrorCode.INTERNAL, "the items could not be stored; the error was logged")


class Items:
    """Reads items part by part, in the order of their ids; then takes the outcomes of what was applied."""

    def __init__(
        self,
        resource: Resource,
        pieces: Sequence[Piece],
        *,
        last_wins: bool,
        max_item_bytes: int,
        indexes: Sequence[int] | None = None,
        refused: Iterable[Rejected] = (),
        later: Mapping[int, ItemOutcome] = MappingProxyType({}),
        effort: Effort | None = None,
        lines: Sequence[int] = (),
        grid: Grid | None = None,
    ) -> None:
        """`indexes`: positions of the raw items in the request, if they are not all of it. `refused`: what is
        known of some of them beforehand. `later`: the outcomes of those that are not to be read now. `effort`: of an
        earlier reading of the same pieces. `lines`: where each piece begins in a body that has lines. `grid`: of a
        workbook."""
        self.type_id = resource.type_id
        self._reader = decoding.reader_of(resource)
        self.pieces = pieces
        """All that were given."""
        self._indexes: Sequence[int] = range(len(pieces)) if indexes is None else indexes
        self._lines = lines
        self._grid = grid
        self._refused = list(refused)
        self._later = later
        self._pieces: Sequence[bytes | msgspec.Raw] = []
        self._warnings: dict[int, list[ItemWarning]] = {}
        self._places: Sequence[int] = self._indexes
        """Position of each raw item that can be read."""
        if self._refused or later or not _READABLE.issuperset(map(type, pieces)):
            self._sort_out()
        else:
            self._pieces = pieces  # type: ignore[assignment]  # all are of these types
        self._last_wins = last_wins
        self._max_item_bytes = max_item_bytes
        self._effort = effort or Effort()
        self._batch = Batch([], {}, {}, [])
        self.outcomes: list[ItemOutcome] = []
        """In request order, once decided."""
        self.versions: list[NewVersion] = []
        """What the items made."""

    def _sort_out(self) -> None:
        """Set the pieces that can be read apart from those that are refused already."""
        left_out = {*self._later, *(row.index for row in self._refused)}
        readable: list[bytes | msgspec.Raw] = []
        for index, piece in zip(self._indexes, self.pieces, strict=True):
            if index in self._later:
                continue
            if isinstance(piece, UnreadablePiece):
                self._refused.append(Rejected(index, piece.record_id, piece.errors))
                left_out.add(index)
            elif index not in left_out:
                if isinstance(piece, Noted):
                    self._warnings[index] = piece.warnings
                    piece = piece.item
                readable.append(piece)
        self._pieces = readable
        if left_out:
            self._places = [index for index in self._indexes if index not in left_out]

    def parts(self) -> Iterator[list[Accepted]]:
        """Accepted items, ids rising over all parts; each part is read when it is asked for.

        A batch whose ids repeat, or are not known beforehand, is read whole before its first part. An empty part is a
        good time for others to have their turn.

        Raises:
            Laborious: the items' effort would become too much.
        """
        order = decoding.key_order(self._pieces) if len(self._pieces) > PART else None
        if order is None:
            read: list[Accepted | Rejected] = []
            yield from self._read(self._pieces, self._places, read)
            self._batch = duplicates.resolve_duplicates(read, last_wins=self._last_wins)
            applied = self._batch.applied
            yield from (applied[start : start + WHOLE] for start in range(0, len(applied), WHOLE))
            return
        self._batch = Batch([], {}, {}, [])
        for start in range(0, len(order), PART):
            part_order = order[start : start + PART]
            pieces = [self._pieces[index] for index in part_order]
            indexes = [self._places[index] for index in part_order]
            read = []
            yield from self._read(pieces, indexes, read)
            part = duplicates.resolve_duplicates(read, last_wins=self._last_wins)
            self._batch.applied.extend(part.applied)
            self._batch.rejected.extend(part.rejected)
            yield part.applied

    def _read(
        self, pieces: Sequence[bytes | msgspec.Raw], indexes: Sequence[int], read: list[Accepted | Rejected]
    ) -> Iterator[list[Accepted]]:
        """Read these into `read`, with an empty part after each stretch of hard work."""
        effort, spent = self._effort, self._effort.spent
        size = max(1, min(_SLICE, _STEP * len(pieces) // (sum(map(len, pieces)) + 1)))
        for start in range(0, len(pieces), size):
            part = slice(start, start + size)
            read += self._reader.read(
                pieces[part], max_item_bytes=self._max_item_bytes, indexes=indexes[part], effort=effort
            )
            if effort.spent - spent > _STEP:
                spent = effort.spent
                yield []

    def examine(self) -> Iterator[None]:
        """Read every item once, in steps between which others may have their turn; `parts` is quick then."""
        self._effort.most = None
        for start in range(0, len(self._pieces), _SLICE):
            part = slice(start, start + _SLICE)
            for _ in self._read(self._pieces[part], self._places[part], []):
                yield
            yield

    def decide(self, decided: dict[int, ItemOutcome], versions: Sequence[NewVersion] = ()) -> None:
        """Take the outcomes of the applied items, by index, and give the others what follows from them."""
        self.versions = list(versions)
        decided.update(self._later)
        for row in (*self._batch.rejected, *self._refused):
            decided[row.index] = outcomes_wire.failed(row.index, row.record_id, row.errors)
        for index, leader in self._batch.followers.items():
            decided[index] = outcomes_wire.follow(index, decided[leader])
        for index, last in self._batch.superseded.items():
            decided[index] = outcomes_wire.yield_to(index, decided[last])
        for index, warnings in self._warnings.items():
            decided[index] = msgspec.structs.replace(decided[index], warnings=warnings)
        self.outcomes = [decided[index] for index in self._indexes]
        self._number()

    def _number(self) -> None:
        for outcome, line in zip(self.outcomes, self._lines, strict=False):
            locate(outcome, line, self._grid)

    def postpone(self, undecided: Undecided, seconds: int) -> None:
        """What would have been applied is for the client to send again."""
        applied = [row for part in self.parts() for row in part]
        self.decide(
            {
                r.index: outcomes_wire.retry(r.index, r.record_id, undecided.code, seconds, undecided.detail)
                for r in applied
            }
        )

    def abort(self) -> None:
        """One item failed under `atomic=true`: nothing was applied, and every other item says so."""
        self.outcomes = [
            outcomes_wire.failed(o.index, o.id, [_ABORTED]) if o.status is ItemStatus.OK else o for o in self.outcomes
        ]
        self._number()


def locate(outcome: ItemOutcome, line: int, grid: Grid | None) -> None:
    """Say where in the file the item is, and of a workbook which cells its errors and warnings are about."""
    outcome.line = line
    if grid is None:
        return
    if outcome.errors:
        outcome.errors = [msgspec.structs.replace(e, cell=grid.find(e.pointer, line) or UNSET) for e in outcome.errors]
    if outcome.warnings:
        outcome.warnings = [
            msgspec.structs.replace(w, cell=grid.find(w.pointer, line) or UNSET) for w in outcome.warnings
        ]


_CHANGES: Final = frozenset({Result.CREATED, Result.UPDATED, Result.DELETED})


def changed(outcomes: Iterable[ItemOutcome]) -> list[ItemOutcome]:
    """The items that made a new version, in order."""
    return [o for o in outcomes if o.result in _CHANGES and o.duplicate_of is msgspec.UNSET]


def sources(outcomes: Iterable[ItemOutcome], pieces: Iterable[Piece]) -> dict[int, Piece]:
    """The items that are not `ok` as they came in, by index."""
    return {
        outcome.index: piece
        for outcome, piece in zip(outcomes, pieces, strict=True)
        if outcome.status is not ItemStatus.OK
    }


_ABORTED: Final = FieldError(
    ErrorCode.ATOMIC_ABORTED, "", "another item of this batch failed and atomic=true, so nothing was applied"
)


def conflict(row: Accepted, version: int) -> ItemOutcome:
    """The outcome of an item whose `if_version` is not the record's (0: there is no such record)."""
    found = f"is at version {version}" if version else "does not exist"
    detail = f"the record {found}, not at version {row.if_version}; read it again and decide anew"
    error = FieldError(ErrorCode.VERSION_CONFLICT, "/if_version", detail)
    return outcomes_wire.failed(row.index, row.record_id, [error])
