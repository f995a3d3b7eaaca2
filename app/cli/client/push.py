"""A whole push: upload the file, follow its job, send again what the service marks `retry`, until nothing is left.

The service answers at once (207) or later (202); either way there is a job, and the job is followed. A push that was
killed finds its jobs by their idempotency keys and sends nothing twice.
"""

import hashlib
import re
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

import msgspec

from app.cli.client.api_client import ApiClient, Response, refuse
from app.cli.client.errors import CanceledError, NotFoundError, RefusedError, TimedOutError
from app.cli.client.failed_file import download_items
from app.cli.client.jobs import JobWatch, describe_open, is_decided, is_finished, job_path, watch_until
from app.cli.client.outcomes import FailedItems, Note, Outcomes, PushedJob
from app.cli.client.progress import Display, counted
from app.cli.client.source_file import CsvFile, SourceFile, in_options
from app.cli.client.summary import Ending
from app.cli.client.upload_body import CSV, NDJSON, XLSX, Body, FileBody, compress, is_worth_compressing
from app.cli.client.wire import LOST_STATES, Accepted, Item, Job, KeyState, read, read_problem
from app.vocabulary.outcomes_wire import JobError
from app.vocabulary.states import ErrorCode, ItemStatus, JobState

_LINE: Final = re.compile(r"line \d+: ")
"""Lines are shown beside the reason, so that rows with the same fault have the same reason."""
_RECEIVING_PAUSE: Final = 2.0
"""Seconds between two questions whether an upload that was cut off is abandoned."""
_PAGE: Final = "1000"
_AT_ONCE: Final = 500_000
"""Bytes; a larger file has too many items for a response at once, so that the service need not read ahead."""
_PACKED_AT_ONCE: Final = 50_000
"""The same of a workbook, which is compressed."""
_BAD_FILE: Final = frozenset({"MALFORMED_REQUEST", "INVALID_HEADER", "REQUEST_TOO_LARGE", "INVALID_PARAMETER"})
"""Codes of a failed job that no repetition helps, but another file or option."""


class PushOptions(msgspec.Struct, frozen=True, kw_only=True):
    type: str = "contacts"
    """Of the records."""
    run: str
    """Identity of the run; part of every idempotency key."""
    fingerprint: str = ""
    """Represents the content of the file in the idempotency key."""
    params: list[tuple[str, str]] = []
    """The query of the import."""
    await_effects: bool = True
    atomic: bool = False
    dry_run: bool = False


async def push(
    api: ApiClient, source: SourceFile, options: PushOptions, outcomes: Outcomes, display: Display
) -> Ending:
    """Send the file and learn what became of every row.

    Raises:
        RefusedError: the server refused the file or the request.
        CanceledError: the job was canceled while the file arrived.
    """
    work = _Push(api, source, options, outcomes, display)
    try:
        await work.run()
    except TimedOutError as error:
        return Ending(exit_code=3, trouble=error.detail, items=work.items)
    except _JobOver as over:
        return msgspec.structs.replace(over.ending, items=work.items)
    return Ending(exit_code=1 if outcomes.lost else 0, items=work.items)


class _JobOver(Exception):
    """The job ended without deciding every row: it was canceled, or it failed."""

    def __init__(self, job: Job, trouble: str, exit_code: int) -> None:
        self.ending = Ending(exit_code=exit_code, trouble=trouble, over=True, not_processed=job.not_processed)


@dataclass
class _Push:
    """The rounds of one push: first the file, then what should be sent again."""

    api: ApiClient
    source: SourceFile
    options: PushOptions
    outcomes: Outcomes
    display: Display
    items: int | None = None
    """Rows of the file as the server counted them, once it has decided all."""

    async def run(self) -> None:
        """Returns when every row is decided, here and at the destinations.

        Raises:
            TimedOutError: work is left.
            _JobOver: a job ended without deciding all of its rows.
        """
        await self._push_file(0)
        self.api.deadline.start_last_wait()
        round_number = 0
        while (waiting := self.outcomes.waiting) is not None and not self.options.dry_run:
            round_number += 1
            if not self.options.atomic:
                await self._push_waiting(round_number, waiting)
            elif self._only_aborted():
                await self._push_file(round_number, waiting)
            else:
                break  # what failed by itself would fail again, and nothing be applied
        for job in self.outcomes.open_jobs():
            await self._await_effects(job)

    def _only_aborted(self) -> bool:
        """Whether no row failed but for others that are to be sent again."""
        return all(items.clusters.keys() <= {ErrorCode.ATOMIC_ABORTED} for items in self.outcomes.lost)

    async def _push_file(self, round_number: int, waiting: FailedItems | None = None) -> None:
        async def body() -> Body:
            if waiting is not None:
                await self._wait(round_number, waiting)
            return self.source.body

        job, sent = await self._follow(await self._submit(self._key(round_number), body, self._params))
        self.items = job.progress.items
        if self.items is None and job.state not in (JobState.CANCELED, JobState.FAILED):
            self.items = job.summary.total
        sent.rows = range(job.summary.total if self.items is None else self.items)
        self.outcomes.clear()
        await self._collect(job, sent)

    async def _push_waiting(self, round_number: int, waiting: FailedItems) -> None:
        """The service gives back the rows that wait, and gets them again as they are."""
        media_type = CSV if isinstance(self.source, CsvFile) else NDJSON
        with tempfile.NamedTemporaryFile(prefix="tranche-again-") as out:

            async def body() -> Body:
                await self._wait(round_number, waiting)
                await download_items(self.api, waiting, media_type, out)
                return FileBody(out.name, media_type)

            job_id = await self._submit(self._key(round_number), body, self.options.params)
        job, sent = await self._follow(job_id)
        sent.rows = waiting.rows
        # What was decided replaces "to be sent again" only now: until then it is still true.
        self.outcomes.waiting = None
        await self._collect(job, sent)

    @property
    def _params(self) -> list[tuple[str, str]]:
        return [*self.source.params, *self.options.params]

    def _key(self, round_number: int) -> str:
        """The Idempotency-Key of a round: the same run, options and file always give the same one."""
        query = "&".join(f"{name}={value}" for name, value in self._params)
        digest = hashlib.sha256()
        for part in (self.options.run, f"round {round_number}", query, self.options.fingerprint):
            digest.update(part.encode() + b"\0")
        return f"push-{digest.hexdigest()[:32]}"

    async def _wait(self, round_number: int, waiting: FailedItems) -> None:
        wait = waiting.retry_after
        if waiting.clusters.keys() <= {ErrorCode.RATE_LIMIT} and self.api.limits.knows("items"):
            # What fits at once is sent as soon as it fits, and the rest gets its times anew.
            wait = min(wait, self.api.limits.wait("items", len(waiting.rows), self.api.clock.now()))
        if wait < 1.0:
            wait = max(wait, self.api.back_off(round_number))
        if wait > self.api.deadline.left():
            raise TimedOutError(f"the next retry is due in {wait:.0f} s")
        self.display.say(f"sending {counted(len(waiting.rows), 'row')} again in {wait:.0f} s")
        await self.api.clock.sleep(wait)

    async def _submit(
        self, key: str, open_body: Callable[[], Awaitable[Body]], params: Sequence[tuple[str, str]]
    ) -> str:
        """The job that has this body, whether it was sent before or has to be now."""
        tries = 0
        body: Body | None = None
        while True:
            known = await self._find(key)
            if known.state == "expired":
                raise RefusedError(
                    "the response to the earlier run is no longer kept by the server; start over with --fresh"
                )
            if known.state == "running":
                trouble = "an upload of this file is still open at the server"
                await self.api.pause(trouble, tries, _RECEIVING_PAUSE)
                continue
            if known.job_id:
                self.outcomes.replayed += not tries
                return known.job_id
            if body is None:
                body = await open_body()
            answer, trouble = await self._upload(key, body, params)
            if answer is None:
                await self.api.pause(trouble, tries)
            elif answer.status < 300:
                self.outcomes.replayed += answer.headers.get("Idempotency-Replayed", "").lower() == "true"
                return read(answer.body, Accepted, self.api.url).job_id
            else:
                self._check_refusal(answer)
                await self.api.pause(f"the server answered {answer.status}", tries, answer.retry_after)
            tries += 1

    def _check_refusal(self, answer: Response) -> None:
        if read_problem(answer.body).code == "JOB_CANCELED":
            raise CanceledError("the job was canceled while the file arrived; nothing of it was imported")
        if answer.is_final:
            error = refuse(answer, self.api.url)
            raise type(error)(in_options(error.detail))

    async def _find(self, key: str) -> KeyState:
        try:
            body = await self.api.ask("GET", f"/v1/idempotency-keys/{quote(key, safe='')}?type={self.options.type}")
        except NotFoundError:
            return KeyState("unknown")
        return read(body, KeyState, self.api.url)

    async def _upload(self, key: str, body: Body, params: Sequence[tuple[str, str]]) -> tuple[Response | None, str]:
        def moved() -> None:
            self.api.deadline.renew()
            self.display.show_upload(body.position, body.size)

        most = _PACKED_AT_ONCE if body.content_type == XLSX else _AT_ONCE
        prefer = "respond-async" if body.size > most else "return=minimal"  # the job has all outcomes
        headers = {"Content-Type": body.content_type, "Idempotency-Key": key, "Prefer": prefer}
        pieces = body.pieces()
        if is_worth_compressing(body):
            headers["Content-Encoding"] = "zstd"
            pieces = compress(body.pieces())
        await self.api.await_tokens("requests")
        if body.size <= _AT_ONCE:
            await self.api.await_tokens("items")
        self.outcomes.requests += 1
        return await self.api.upload(
            f"/v1/{self.options.type}:bulk", params=params, headers=headers, pieces=pieces, moved=moved
        )

    async def _follow(self, job_id: str) -> tuple[Job, PushedJob]:
        """The job once it is decided what became of every item here, or that nothing more will."""
        sent = PushedJob(job_id)
        self.outcomes.jobs.append(sent)
        processed = -1

        def seen(job: Job) -> None:
            nonlocal processed
            self._show(job, sent)
            if job.processed != processed:
                processed = job.processed
                self.api.deadline.renew()

        job = await self._watch(job_id, is_decided, seen)
        sent.awaited = bool(self.options.await_effects and not self.options.dry_run and job.effects)
        return job, sent

    async def _await_effects(self, sent: PushedJob) -> None:
        """Wait for the destinations, and list the rows that one of them refused."""
        job = await self._watch(sent.job_id, is_finished, lambda job: self._show(job, sent))
        for name, counts in job.effects.items():
            for state in LOST_STATES:
                if counts.get(state):
                    await self._list(sent, {"destination": name, "status": state.value})
        sent.awaited = False

    async def _watch(self, job_id: str, done: Callable[[Job], bool], seen: Callable[[Job], None]) -> Job:
        watch = JobWatch(self.api, job_id)
        job = await watch_until(watch, done, self.api.deadline, seen)
        if not done(job):
            raise TimedOutError(describe_open(job))
        return job

    def _show(self, job: Job, sent: PushedJob) -> None:
        sent.update(job)
        self.display.show_job(job, self.outcomes.effects())

    async def _collect(self, job: Job, sent: PushedJob) -> None:
        if job.results:
            self.outcomes.ok.update(job.results)
        else:
            self.outcomes.ok["ok"] += job.summary.succeeded
        for status, expected in ((ItemStatus.FAILED, job.summary.failed), (ItemStatus.RETRY, job.summary.retry)):
            found = await self._list(sent, {"status": status.value}) if expected else None
            if found is not None and len(found.rows) != expected:
                raise RefusedError(
                    f"job {sent.job_id} has {expected} {status} items and lists {len(found.rows)} of them"
                )
        if job.state == JobState.CANCELED:
            stayed = f"what had been processed stays ({counted(job.processed, 'row')})"
            rest = f"{job.not_processed:,} were not processed; pushing the file again imports them"
            raise _JobOver(job, f"job {job.job_id} was canceled: {stayed}, {rest}", 1)
        if job.state == JobState.FAILED:
            error = job.error or JobError("", "")
            trouble = f"job {job.job_id} failed ({error.code or 'no reason was given'}): {in_options(error.detail)}"
            raise _JobOver(job, trouble, 2 if error.code in _BAD_FILE else 1)

    async def _list(self, sent: PushedJob, filters: dict[str, str]) -> FailedItems:
        """Keep which items of a job are not ok, and why.

        Raises:
            RefusedError: they are no items of this file.
        """
        found = FailedItems(sent.job_id, filters)
        async for raw in self.api.list(job_path(sent.job_id, "/items"), "items", {**filters, "limit": _PAGE}):
            item = msgspec.json.decode(raw, type=Item)
            if item.index >= len(sent.rows):
                raise RefusedError(f"job {sent.job_id} lists item {item.index}, of {len(sent.rows)} sent")
            found.add(_note(item, sent.rows[item.index], filters.get("destination", "")))
        if filters["status"] == ItemStatus.RETRY:
            self.outcomes.waiting = found
        else:
            self.outcomes.lost.append(found)
        return found


def _note(item: Item, row: int, destination: str) -> Note:
    if destination:
        effect = item.destinations[destination]
        return Note(row, item.id, destination, effect.state, effect.error_code or "", effect.detail or "")
    code = item.error_code or (item.errors[0].code if item.errors else "")
    detail = _LINE.sub("", item.detail, count=1)
    return Note(row, item.id, "", item.status, code, detail, item.retry_after_seconds or 0.0)
