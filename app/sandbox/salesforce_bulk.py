"""Ingest jobs of Bulk API 2.0 at the stand-in for Salesforce: created, filled once, closed, and done a moment later.

An upsert by an external id, from CSV with LF, is all that is known here. A column that the object does not have fails
the whole job; an empty cell leaves a field alone and `#N/A` clears it. What was not done at an abort is unprocessed.
"""

import csv
import io
import itertools
import time
from typing import Any, Final

import msgspec

from app.sandbox.salesforce_objects import NUMBERS, OBJECTS, SObject

NOTHING: Final = "#N/A"
MOST_BYTES: Final = 100_000_000
_RUNS: Final = 0.3
"""Seconds that a job takes at least."""


class Job(msgspec.Struct, kw_only=True):
    """One job, and what became of its rows."""

    id: str
    portal: str
    object: str
    key: str
    state: str = "Open"
    error: str = ""
    columns: list[str] = []
    rows: list[dict[str, str]] | None = None
    closed_at: float = 0.0
    written: list[tuple[dict[str, str], str, bool]] = []
    """(row, record id, created)"""
    failed: list[tuple[dict[str, str], str]] = []
    """(row, error)"""

    @property
    def due(self) -> bool:
        """Whether it is to be done now."""
        return self.state in ("UploadComplete", "InProgress") and time.monotonic() >= self.closed_at + _RUNS

    def shown(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "operation": "upsert",
            "object": self.object,
            "externalIdFieldName": self.key,
            "state": self.state,
            "contentType": "CSV",
            "lineEnding": "LF",
            "columnDelimiter": "COMMA",
            "jobType": "V2Ingest",
            "numberRecordsProcessed": len(self.written) + len(self.failed),
            "numberRecordsFailed": len(self.failed),
            "errorMessage": self.error or None,
        }

    def results(self, which: str) -> bytes:
        """CSV of the rows that were written, that failed, or that nothing was done with."""
        if which == "unprocessedrecords":
            known = {id(row) for row, *_ in self.written} | {id(row) for row, _ in self.failed}
            return _csv(self.columns, [row for row in self.rows or [] if id(row) not in known])
        if which == "failedResults":
            rows = [{"sf__Id": "", "sf__Error": error, **row} for row, error in self.failed]
            return _csv(["sf__Id", "sf__Error", *self.columns], rows)
        done = [{"sf__Id": there, "sf__Created": str(new).lower(), **row} for row, there, new in self.written]
        return _csv(["sf__Id", "sf__Created", *self.columns], done)


class Jobs:
    """Of all accounts."""

    def __init__(self) -> None:
        self._count = itertools.count(1)
        self._jobs: dict[tuple[str, str], Job] = {}

    def create(self, portal: str, asked: Any) -> Job | str:
        """The job, or why there is none."""
        if not isinstance(asked, dict) or asked.get("operation") != "upsert" or asked.get("contentType") != "CSV":
            return "operation upsert and contentType CSV are expected"
        if asked.get("object") not in OBJECTS or asked.get("lineEnding", "LF") != "LF":
            return "object: unknown, or lineEnding is not LF"
        key = asked.get("externalIdFieldName")
        if not isinstance(key, str) or not key.endswith("__c"):
            return "externalIdFieldName is required for upsert"
        job = Job(id=f"750{next(self._count):012d}AAA", portal=portal, object=asked["object"], key=key)
        self._jobs[portal, job.id] = job
        return job

    def find(self, portal: str, job_id: str) -> Job | None:
        return self._jobs.get((portal, job_id))

    def forget(self) -> None:
        """As after seven days."""
        self._jobs.clear()


def read(job: Job, body: bytes) -> str:
    """Take the rows; why not, if so."""
    if job.state != "Open" or job.rows is not None:
        return "InvalidJobState"
    if len(body) > MOST_BYTES:
        return "ClientInputError"
    reader = csv.DictReader(io.StringIO(body.decode(), newline=""), strict=True)
    job.rows = list(reader)
    job.columns = list(reader.fieldnames or [])
    return ""


def values_of(of: SObject, row: dict[str, str]) -> dict[str, Any]:
    """What a row sets, in the types of its columns."""
    found: dict[str, Any] = {}
    for name, cell in row.items():
        column = of.columns.get(name)
        if cell == NOTHING:
            found[name] = None
        elif cell != "" and column is not None and column.type in NUMBERS:
            found[name] = float(cell) if "." in cell else int(cell)
        elif cell != "":
            found[name] = cell
    return found


def _csv(columns: list[str], rows: list[dict[str, str]]) -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()
