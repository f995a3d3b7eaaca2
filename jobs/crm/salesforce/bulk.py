"""Many records by one job of Bulk API 2.0: five calls for thousands of them, where collections need one for 200.

Source: Bulk API 2.0 Developer Guide, Ingest (create a job, upload job data, close or abort a job, job info, results).
A job writes nothing before it is closed for uploads. In its CSV an empty cell leaves a field alone, and `#N/A` clears
it.
"""

import csv
import io
import re
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import quote

from app.vocabulary.states import EffectState
from jobs.crm.answers import as_a_whole
from jobs.crm.exchange import Answer, Body, Connection, NoAnswer
from jobs.crm.mapping import text
from jobs.crm.port import BulkJob, BulkState, Headers, Health, Outcome, SentRecord
from jobs.crm.salesforce.answers import Quota, SalesforceJudge
from jobs.crm.salesforce.fields import Fields

NOTHING: Final = "#N/A"
_TASK: Final = re.compile(r"[A-Za-z0-9]{1,40}")
_PAGE: Final = 1_000
_MOST_PAGES: Final = 20
_STATES: Final = {
    "Open": BulkState.OPEN,
    "UploadComplete": BulkState.RUNNING,
    "InProgress": BulkState.RUNNING,
    "JobComplete": BulkState.ENDED,
    "Failed": BulkState.ENDED,
    "Aborted": BulkState.ENDED,
}


class BulkJobs:
    """Of one organisation, for records of one object (`jobs.crm.port.BulkWriter`)."""

    def __init__(
        self,
        connection: Connection,
        judge: SalesforceJudge,
        fields: Fields,
        quota: Quota,
        base: str,
        own: dict[str, str] | None,
        *,
        least: int | None,
        matches: bool,
    ) -> None:
        """`own`: header fields of every write. `matches`: records that are not known there are looked for before, which
        a job cannot do."""
        self.least = least
        self._connection = connection
        self._judge = judge
        self._fields = fields
        self._quota = quota
        self._jobs = f"{base}/jobs/ingest"
        self._own = own
        self._matches = matches

    def takes(self, record: SentRecord) -> bool:
        """Whether a job writes it as a collection would: one cell cannot hold everything."""
        if record.deleted or record.adopted or record.released or (self._matches and record.remote_id is None):
            return False
        return all(value != NOTHING and value != "" for value in self._fields.sobject(record).values())

    async def create(self, records: list[SentRecord], headers: Headers) -> BulkJob:
        if (paused := self._paused()) is not None:
            return paused
        job = {
            "object": self._fields.object,
            "externalIdFieldName": self._fields.key,
            "operation": "upsert",
            "contentType": "CSV",
            "lineEnding": "LF",
        }
        made = await self._call("POST", "", job, headers)
        body = made.json()
        task = body.get("id") if isinstance(body, dict) else None
        if not made.well or not isinstance(task, str) or not _TASK.fullmatch(task):
            return self._failed(made)
        content = Body(self._csv(records), "text/csv")
        uploaded = await self._call("PUT", f"/{quote(task, safe='')}/batches", content, headers, spent=made.seconds)
        if not uploaded.well:
            return self._failed(uploaded, spent=made.seconds)
        return _job(uploaded, task, BulkState.OPEN, spent=made.seconds)

    async def start(self, task: str, headers: Headers) -> BulkJob:
        return await self._change(task, "UploadComplete", headers)

    async def abort(self, task: str, headers: Headers) -> BulkJob:
        return await self._change(task, "Aborted", headers)

    async def look(self, task: str, headers: Headers) -> BulkJob:
        if (paused := self._paused()) is not None:
            return paused
        answer = await self._call("GET", f"/{quote(task, safe='')}", None, headers)
        return self._state(task, answer)

    async def results(self, task: str, records: list[SentRecord], headers: Headers) -> BulkJob:
        """Only of what was written: the others were not, and a collection says why."""
        by_key = {record.record_id: record for record in records}
        outcomes: dict[str, Outcome] = {}
        locator, seconds = "", 0.0
        for _ in range(_MOST_PAGES):
            place = f"&locator={quote(locator, safe='')}" if locator else ""
            path = f"/{quote(task, safe='')}/successfulResults/?maxRecords={_PAGE}{place}"
            answer = await self._call("GET", path, None, headers, spent=seconds)
            if not isinstance(answer, Answer) or not answer.well or answer.trouble:
                return self._failed(answer, spent=seconds)
            seconds += answer.seconds
            try:
                rows = list(_rows(answer.body))
            except csv.Error:
                return self._failed(answer, spent=seconds)
            for row in rows:
                key = row.get(self._fields.key)
                if key in by_key and row.get("sf__Id"):
                    created = {"true": True, "false": False}.get(str(row.get("sf__Created")).lower())
                    outcomes[key] = Outcome(key, EffectState.OK, remote_id=row["sf__Id"], created=created)
            locator = answer.headers.get("Sforce-Locator", "null")
            if locator == "null":
                return BulkJob(
                    task=task,
                    state=BulkState.ENDED,
                    outcomes=outcomes,
                    health=Health.WELL,
                    seconds=seconds,
                    status=answer.status,
                )
        return BulkJob(task=task, state=None, health=Health.WELL, seconds=seconds, detail="its results do not end")

    async def _change(self, task: str, state: str, headers: Headers) -> BulkJob:
        answer = await self._call("PATCH", f"/{quote(task, safe='')}", {"state": state}, headers)
        return self._state(task, answer)

    def _state(self, task: str, answer: Answer | NoAnswer) -> BulkJob:
        if answer.status == 404:
            return _job(answer, task, BulkState.GONE)
        body = answer.json() if answer.well else None
        state = _STATES.get(str(body.get("state"))) if isinstance(body, dict) else None
        return self._failed(answer) if state is None else _job(answer, task, state)

    def _paused(self) -> BulkJob | None:
        pause = self._quota.pause()
        if pause is None:
            return None
        return BulkJob(task=None, state=None, health=Health.WELL, pause=pause, detail=pause.detail)

    async def _call(
        self, method: str, path: str, payload: object, headers: Headers, *, spent: float = 0.0
    ) -> Answer | NoAnswer:
        accepts = {"Accept": "text/csv"} if "Results" in path else {}
        answer = await self._connection.call(
            method,
            self._jobs + path,
            payload,
            headers,
            headers={**(self._own or {}), **accepts},
            seconds=self._connection.left(spent),
        )
        self._quota.note(answer)
        return answer

    def _failed(self, answer: Answer | NoAnswer, *, spent: float = 0.0) -> BulkJob:
        said = as_a_whole(self._judge.reply([], answer))
        return BulkJob(task=None, state=None, **said | {"seconds": spent + answer.seconds, "status": answer.status})

    def _csv(self, records: list[SentRecord]) -> bytes:
        rows = [{name: v for name, v in self._fields.sobject(c).items() if name != "attributes"} for c in records]
        names = sorted({name for row in rows for name in row})
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(names)
        for row in rows:
            writer.writerow([NOTHING if name in row and row[name] is None else text(row.get(name)) for name in names])
        return out.getvalue().encode()


def _job(answer: Answer | NoAnswer, task: str, state: BulkState, *, spent: float = 0.0) -> BulkJob:
    return BulkJob(task=task, state=state, health=Health.WELL, seconds=spent + answer.seconds, status=answer.status)


def _rows(body: bytes) -> Iterator[dict[str, Any]]:
    return csv.DictReader(io.StringIO(body.decode("utf-8-sig", "replace"), newline=""))
