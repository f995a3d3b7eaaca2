"""Ids that appear in a file more than once: what that means for the items of one of its chunks.

A file is one batch, whatever chunks it is cut into, so its repeated ids are settled before any chunk is applied.
"""

from collections.abc import Iterable, Sequence
from enum import StrEnum

import msgspec

from app.files.workbook.addresses import Grid
from app.imports.batch import duplicates
from app.imports.batch.items import Items
from app.resources.declaration import Resource
from app.resources.decoding import Piece, Rejected


class Verdict(StrEnum):
    ALONE = "alone"
    """Its id is unique after all: only a hash was shared, or the others are not items."""
    LEADER = "leader"
    """It is applied, for others too."""
    EQUAL = "equal"
    """It gets the outcome of its leader, which says the same."""
    OLDER = "older"
    """A later item of its id wins."""
    DIFFERING = "differing"
    """Others of its id say something else: none is applied."""


class Repeat(msgspec.Struct, frozen=True):
    """An item whose id, or at least its hash, appears in the file more than once."""

    item_index: int
    record_id: str | None
    verdict: str | None
    leader: int | None
    members: int | None
    others: list[int] | None
    outcome: str | None
    """The leader's, as JSON."""


class Plan(msgspec.Struct, frozen=True):
    """How the items of a chunk are to be taken."""

    items: Items
    """Those that can be decided now."""
    leaders: list[int]
    """Items among them whose outcome others wait for."""
    waiting: list[int]
    """Items that get their outcome from a leader."""


def plan(
    resource: Resource,
    first_index: int,
    pieces: Sequence[Piece],
    findings: Iterable[Repeat],
    *,
    max_item_bytes: int,
    lines: Sequence[int] = (),
    grid: Grid | None = None,
) -> Plan:
    """Part a chunk, whose first item has the index `first_index`, by what was found of its repeated items."""
    refused: list[Rejected] = []
    leaders: list[int] = []
    waiting: list[int] = []
    for found in findings:
        if found.verdict == Verdict.DIFFERING:
            refused.append(
                duplicates.reject(found.item_index, found.record_id, found.others or (), members=found.members or 2)
            )
        elif found.verdict == Verdict.LEADER:
            leaders.append(found.item_index)
        elif found.verdict in (Verdict.EQUAL, Verdict.OLDER):
            waiting.append(found.item_index)
    indexes: Sequence[int] = range(first_index, first_index + len(pieces))
    if waiting:
        held = set(waiting)
        indexes = [index for index in indexes if index not in held]
        pieces = [pieces[index - first_index] for index in indexes]
        lines = [lines[index - first_index] for index in indexes] if lines else ()
    items = Items(
        resource,
        pieces,
        last_wins=False,
        max_item_bytes=max_item_bytes,
        indexes=indexes,
        refused=refused,
        lines=lines,
        grid=grid,
    )
    return Plan(items, leaders, waiting)
