"""What a round left behind, read from files alone: journals, ledgers of the CRMs, rows of tables, and `docs/states.md`.

Neither this nor the checker imports anything of Tranche: what both halves believe wrongly, a shared line would hide.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import msgspec

from tests.chaos.resources import Place, object_of, type_at

STATES: Final = Path(__file__).parents[2] / "docs" / "states.md"
WORDS: Final = {"p": "pending", "o": "ok", "r": "retry", "f": "failed", "u": "unknown", "d": "dead", "s": "skipped"}
"""Letters of `deliveries.states`."""
FINISHED: Final = frozenset({"completed", "completed_with_failures", "failed", "canceled"})
PASSING: Final = frozenset({408, 409, 429, 503})
"""Statuses that ask for the same again."""
_HEADINGS: Final = {
    "An item, here": "item_here",
    "An item, at one destination": "item",
    "A delivery (one chunk of at most 100 items for one destination)": "delivery",
    "A dead letter": "letter",
    "A job": "job",
    "A saga": "saga",
}
_EDGE: Final = re.compile(r"^\s*(\[\*\]|\w+) --> (\[\*\]|\w+)")

Row = dict[str, Any]
Edges = set[tuple[str, str]]


class Finding(msgspec.Struct, frozen=True):
    """A broken promise, with what shows it."""

    name: str
    detail: str

    def __str__(self) -> str:
        return f"{self.name}: {self.detail}"


Findings = Iterator[Finding]


class Evidence(msgspec.Struct, kw_only=True, dict=True):
    """One round."""

    journal: list[Row] = []
    tables: dict[str, list[Row]] = {}
    effects: dict[str, list[Row]] = {}
    """By CRM: what was applied there, in order."""
    calls: dict[str, list[Row]] = {}
    destinations: dict[str, int] = {}
    """By CRM: the id of the destination that it stands behind."""
    kinds: dict[str, str] = {}
    """By CRM: hubspot …"""
    secret: str = ""
    """Under which webhooks are signed."""
    faults: list[Row] = []
    unanswered: list[str] = []
    """Keys without an answer, though nothing was broken any more."""
    surprises: list[str] = []
    """What API and workers logged of errors that nobody foresaw."""
    restless: float | None = None
    """Seconds for which rest was waited for in vain."""

    def table(self, name: str) -> list[Row]:
        return self.tables.get(name, [])

    def rows(self, row: str) -> list[Row]:
        return [entry for entry in self.journal if entry["row"] == row]

    @cached_property
    def requests(self) -> dict[str, Row]:
        """By fingerprint and key."""
        return {f"{r['key']} {r['sha256']}": r for r in self.rows("request")}

    @cached_property
    def jobs(self) -> dict[str, Row]:
        return {row["job_id"]: row for row in self.table("jobs")}

    @cached_property
    def records(self) -> dict[Place, Row]:
        return {place_of(row): row for row in self.table("records")}

    @cached_property
    def ledger(self) -> dict[Place, list[Row]]:
        """By record, versions rising."""
        found: dict[Place, list[Row]] = defaultdict(list)
        for row in sorted(self.table("ledger"), key=lambda row: int(row["version"])):
            found[place_of(row)].append(row)
        return found

    @cached_property
    def entered(self) -> dict[tuple[str, int], Row]:
        """Ledger rows by job and item."""
        return {(row["job_id"], row["item_index"]): row for row in self.table("ledger")}

    @cached_property
    def listed(self) -> dict[str, list[Row]]:
        """Every item of a job, as the API told in the end."""
        return {row["job_id"]: row["items"] for row in self.rows("items") if row["final"]}

    def takes(self, crm: str, type: str) -> bool:
        """Whether records of a type have a place at a CRM."""
        return object_of(self.kinds[crm], type) is not None

    @cached_property
    def crm_of(self) -> dict[int, str]:
        return {number: crm for crm, number in self.destinations.items()}


def place_of(row: Row) -> Place:
    """Of a record, a version, or an effect."""
    return row["type"], row["key"] if "key" in row else row["record_id"]


def shown(place: Place) -> str:
    """In words."""
    return f"{place[1]} of {place[0]}"


def load(folder: Path) -> Evidence:
    """A round that was written by `tests.chaos.play`."""
    found = msgspec.json.decode((folder / "evidence.json").read_bytes(), type=Evidence)
    found.journal = _lines(folder / "journal.jsonl")
    for crm in found.destinations:
        rows = _lines(folder / f"ledger-{crm}.jsonl")
        found.effects[crm] = [row for row in rows if row["row"] == "effect"]
        for effect in found.effects[crm]:
            effect["type"] = type_at(found.kinds[crm], effect["object"])
        found.calls[crm] = [row for row in rows if row["row"] == "call"]
    return found


def _lines(path: Path) -> list[Row]:
    return [msgspec.json.decode(line) for line in path.read_bytes().splitlines() if line]


def read_states(text: str) -> dict[str, Edges]:
    """The edges of each diagram of `docs/states.md`."""
    found: dict[str, Edges] = {}
    heading = ""
    for line in text.splitlines():
        if line.startswith("## "):
            heading = _HEADINGS.get(line[3:].strip(), "")
        edge = _EDGE.match(line)
        if heading and edge is not None:
            found.setdefault(heading, set()).add((edge[1], edge[2]))
    missing = set(_HEADINGS.values()) - found.keys()
    if missing:
        raise ValueError(f"docs/states.md has no diagram of: {', '.join(sorted(missing))}")
    return found


def reachable(edges: Edges, before: str, after: str) -> bool:
    """Whether a look at `before` may be followed by one at `after`, whatever was passed between them."""
    seen, front = {before}, [before]
    while front:
        here = front.pop()
        if here == after:
            return True
        for start, end in edges:
            if start == here and end not in seen and end != "[*]":  # the end is no beginning
                seen.add(end)
                front.append(end)
    return False
