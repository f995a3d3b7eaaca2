"""A whole push of a file that travels in one piece: upload it, follow its job, send again what should be."""

from __future__ import annotations

import hashlib
import random
import tempfile
from array import array
from collections.abc import Callable, Iterable, Sequence
from typing import Final
from urllib.parse import quote

import msgspec

from app.cli.client.batches import make_key
from app.cli.client.body import NDJSON_TYPE, Body, FileBody, compress, flatten, is_worth_compressing
from app.cli.client.clock import Clock, Patience
from app.cli.client.effects import wait_for_effects
from app.cli.client.errors import CanceledError, ClientError, NotFoundError, PatienceError, RefusedError
from app.cli.client.failed_file import AnySource
from app.cli.client.http import Answer, Api, refuse
from app.cli.client.jobs import JobWatch, describe_open, fetch_items, is_decided
from app.cli.client.progress import Display, counted
from app.cli.client.results import UNPLACED, Note, Results, SentJob
from app.cli.client.rows import Row
from app.cli.client.summary import Outcome
from app.cli.client.uploader import ROUTE
from app.cli.client.wire import Accepted, Job, KeyState, read, read_problem
from app.domain.outcomes import ErrorCode, ItemStatus, JobState

_RECEIVING_PAUSE: Final = 2.0
"""Seconds between two questions whether an upload that was cut off is given up."""
_PAGE: Final = "1000"
_BAD_FILE: Final = frozenset(
    {"MALFORMED_REQUEST", "INVALID_HEADER", "REQUEST_TOO_LARGE", "INVALID_PARAMETER"}
)
"""Codes of a failed job that no repetition helps, but another file or option."""


class FileOptions(msgspec.Struct, frozen=True, kw_only=True):
    url: str
    key: str
    run: str
    mark: str = ""
    """Stands for the content of the file in the idempotency key."""
    params: list[tuple[str, str]] = []
    """The query of the import."""
    patience: float = 300.0
    """Seconds; see `clock.Patience`."""
    first_contact: float | None = None
    """Seconds; see `http.Api`."""
    await_effects: bool = True
    atomic: bool = False
    dry_run: bool = False


class _Ending(msgspec.Struct, frozen=True):
    """How it ended where that was not with every row decided."""

    exit_code: int
    trouble: str
    over: bool = False
    not_processed: int = 0


async def push_file(
    source: AnySource,
    body: Body,
    options: FileOptions,
    results: Results,
    display: Display,
    *,
    clock: Clock,
    rng: random.Random | None = None,
) -> Outcome:
    """Send the file and learn what became of every row.

    Raises:
        RefusedError: the server refused the file or the request.
        CanceledError: the job was canceled while the file arrived.
        ClientError: the outcomes cannot be matched with the rows.
    """
    began = clock.now()
    patience = Patience(clock, options.patience)
    async with Api(
        options.url,
        options.key,
        clock=clock,
        patience=patience,
        notify=display.say,
        rng=rng,
        first_contact=options.first_contact,
    ) as api:
        push = _Push(api, source, body, options, results, display, clock, patience)
        try:
            ending = await push.run()
        except PatienceError as error:
            ending = _Ending(3, error.detail)
    seen = results.place(source.rows())
    if seen is not None and push.count is not None and seen != push.count:
        raise ClientError(
            f"the server read {counted(push.count, 'row')} in {source.path}, this program {seen:,}: which rows failed "
            f"cannot be told from here; see: tranche jobs items {results.jobs[0].job_id} --failed --csv"
        )
    if ending is None:
        ending = _Ending(1 if results.has_failures() else 0, "")
    return Outcome(
        exit_code=ending.exit_code,
        file=source.path,
        run=options.run,
        mode="file",
        dry_run=options.dry_run,
        over=ending.over,
        not_processed=ending.not_processed,
        all_sent=push.count is not None,
        trouble=ending.trouble,
        blank=source.blank,
        elapsed=clock.now() - began,
    )


class _Push:
    """The rounds of one push: first the file, then what should be sent again, until nothing is left."""

    def __init__(
        self,
        api: Api,
        source: AnySource,
        body: Body,
        options: FileOptions,
        results: Results,
        display: Display,
        clock: Clock,
        patience: Patience,
    ) -> None:
        self._api = api
        self._source = source
        self._body = body
        self._options = options
        self._results = results
        self._display = display
        self._clock = clock
        self._patience = patience
        self._query = "&".join(f"{name}={value}" for name, value in options.params)
        self.count: int | None = None
        """Rows of the file as the server counted them, once it has decided all."""

    async def run(self) -> _Ending | None:
        """`None` when every row is decided, here and at the destinations.

        Raises:
            PatienceError: work is left.
        """
        ending = await self._send_whole(0)
        self._patience.start_last_wait()
        turn = 0
        while ending is None and self._results.retry and not self._options.dry_run:
            if self._options.atomic and not self._results.only_aborted():
                break  # what failed by itself would fail again, and nothing be applied
            await self._wait(turn)
            turn += 1
            ending = await (self._send_whole(turn) if self._options.atomic else self._send_rest(turn))
        if ending is None and self._results.open_jobs():
            await self._settle()
        return ending

    async def _settle(self) -> None:
        settled = self._patience.left() > 0 and await wait_for_effects(
            self._api, self._results, clock=self._clock, patience=self._patience, concurrency=4
        )
        if not settled:
            raise PatienceError("")

    async def _wait(self, turn: int) -> None:
        told = self._results.longest_wait()
        wait = max(told, self._api.back_off(turn)) if told < 1.0 else told
        if wait > self._patience.left():
            raise PatienceError(f"rows are to be sent again in {wait:.0f} s only")
        self._display.say(
            f"sending {counted(self._results.retry, 'row')} again in {wait:.0f} s, as the server told"
        )
        await self._clock.sleep(wait)

    async def _send_whole(self, turn: int) -> _Ending | None:
        key = make_key(self._options.run, f"file r{turn}", self._query, self._options.mark.encode())
        job_id = await self._submit(key, self._body, self._options.params)
        job, sent = await self._follow(job_id)
        self.count = job.progress.items
        if self.count is None and job.state not in (JobState.CANCELED, JobState.FAILED):
            self.count = job.summary.total
        sent.numbers = range(job.summary.total if self.count is None else self.count)
        self._results.clear()
        return await self._collect(job, sent)

    async def _send_rest(self, turn: int) -> _Ending | None:
        """The rows that wait go as NDJSON, in which every kind of file can say what its rows mean."""
        with tempfile.NamedTemporaryFile(prefix="tranche-again-") as out:
            digest = hashlib.sha256()

            def write(line: bytes) -> None:
                digest.update(line)
                out.write(line)

            waiting = self._results.waiting()
            numbers, faulty = select_rows(self._source.rows(), waiting, write)
            if len(numbers) + len(faulty) != len(waiting):
                raise ClientError(f"{self._source.path} has changed since it was sent; nothing more was sent")
            out.flush()
            self._reject(faulty)
            if not numbers:
                return None
            key = make_key(self._options.run, f"file r{turn}", self._query, digest.digest())
            # The rows are items now, so there is no column to rename.
            params = [(name, value) for name, value in self._options.params if name not in ("map", "ignore")]
            job_id = await self._submit(key, FileBody(out.name, NDJSON_TYPE), params)
        job, sent = await self._follow(job_id)
        sent.numbers = numbers
        # What was decided takes the place of "to be sent again" only now: until then it is still true.
        self._results.retry -= len(numbers)
        self._results.forget(numbers)
        return await self._collect(job, sent)

    def _reject(self, rows: list[Row]) -> None:
        """Rows that no server needs to see again."""
        self._results.retry -= len(rows)
        self._results.failed += len(rows)
        self._results.add(
            Note(r.number, r.line, "", ItemStatus.FAILED, ErrorCode.INVALID_FIELD, r.problem) for r in rows
        )

    async def _submit(self, key: str, body: Body, params: Sequence[tuple[str, str]]) -> str:
        """The job that has this body, whether it had been sent before or has to be now."""
        tries = 0
        while True:
            known = await self._find(key)
            if known is not None and known.state == "expired":
                raise RefusedError(
                    "the answer to the earlier run is no longer kept by the server; start over with --fresh"
                )
            if known is not None and known.state != "running" and known.job_id:
                self._results.replayed += not tries
                return known.job_id
            if known is not None and known.state == "running":
                await self._pause("an upload of this file is still open at the server", _RECEIVING_PAUSE)
                continue
            answer, trouble = await self._upload(key, body, params)
            if answer is not None and answer.status < 300:
                return read(answer.body, Accepted, self._api.url).job_id
            if answer is not None:
                trouble = f"the server answered {answer.status}"
                self._check_refusal(answer)
            told = answer.retry_after if answer is not None else None
            await self._pause(trouble, self._api.back_off(tries) if told is None else told)
            tries += 1

    def _check_refusal(self, answer: Answer) -> None:
        if read_problem(answer.body).code == "JOB_CANCELED":
            raise CanceledError("the job was canceled while the file arrived; nothing of it was imported")
        if answer.is_final:
            error = refuse(answer, self._api.url)
            raise type(error)(_add_remedy(error.detail))

    async def _find(self, key: str) -> KeyState | None:
        try:
            answer = await self._api.get(f"/v1/idempotency-keys/{quote(key, safe='')}")
        except NotFoundError:
            return None
        return read(answer.body, KeyState, self._api.url)

    async def _pause(self, trouble: str, seconds: float) -> None:
        if seconds > self._patience.left():
            raise PatienceError(f"{trouble}; patience ended")
        self._display.say(f"{trouble}; trying again in {seconds:.1f} s")
        await self._clock.sleep(seconds)

    async def _upload(
        self, key: str, body: Body, params: Sequence[tuple[str, str]]
    ) -> tuple[Answer | None, str]:
        def moved() -> None:
            self._patience.renew()
            self._display.show_upload(body.position, body.size)

        headers = {"Content-Type": body.content_type, "Idempotency-Key": key, "Prefer": "respond-async"}
        pieces = body.pieces()
        if is_worth_compressing(body):
            headers["Content-Encoding"] = "zstd"
            pieces = compress(pieces)
        self._results.requests += 1
        return await self._api.upload(ROUTE, params=params, headers=headers, pieces=pieces, moved=moved)

    async def _follow(self, job_id: str) -> tuple[Job, SentJob]:
        """The job once it is decided what became of every item here, or that nothing more will."""
        sent = SentJob(job_id, ())
        self._results.jobs.append(sent)
        watch = JobWatch(self._api, job_id)
        seen = -1
        while True:
            job = await watch.poll(self._patience.left())
            sent.state, sent.effects, sent.waiting = (
                job.state,
                job.effects,
                job.waiting.detail if job.waiting else "",
            )
            self._display.show_job(job, self._results)
            if is_decided(job):
                sent.awaited = bool(self._options.await_effects and not self._options.dry_run and job.effects)
                return job, sent
            if job.processed != seen:
                seen = job.processed
                self._patience.renew()
            if watch.pause > self._patience.left():
                raise PatienceError(describe_open(job))
            await self._clock.sleep(watch.pause)

    async def _collect(self, job: Job, sent: SentJob) -> _Ending | None:
        results = self._results
        if job.results:
            results.ok.update(job.results)
        else:
            results.ok["ok"] += job.summary.succeeded
        results.failed += await self._note(sent, ItemStatus.FAILED, job.summary.failed)
        results.retry += await self._note(sent, ItemStatus.RETRY, job.summary.retry)
        if job.state == JobState.CANCELED:
            trouble = (
                f"job {job.job_id} was canceled: what had been processed stays ({counted(job.processed, 'row')}), "
                f"{job.not_processed:,} were not processed; pushing the file again imports them"
            )
            return _Ending(1, trouble, over=True, not_processed=job.not_processed)
        if job.state == JobState.FAILED:
            code, detail = (job.error.code, job.error.detail) if job.error else ("", "")
            trouble = f"job {job.job_id} failed ({code or 'no reason was given'}): {_add_remedy(detail)}"
            return _Ending(2 if code in _BAD_FILE else 1, trouble, over=True, not_processed=job.not_processed)
        return None

    async def _note(self, sent: SentJob, status: ItemStatus, expected: int) -> int:
        """Keep why items are not ok; their number is returned.

        Raises:
            RefusedError: there are not as many as the job told, or they are no items of this file.
        """
        if not expected:
            return 0
        count = 0
        filters = {"status": status.value, "limit": _PAGE}
        async for item in fetch_items(self._api, sent.job_id, filters):
            if item.index >= len(sent.numbers):
                raise RefusedError(
                    f"job {sent.job_id} tells of item {item.index}, of {len(sent.numbers)} sent"
                )
            code = item.error_code or (item.errors[0].code if item.errors else "")
            wait = item.retry_after_seconds or 0.0
            self._results.add(
                [Note(sent.numbers[item.index], UNPLACED, "", item.status, code, item.detail, wait)]
            )
            count += 1
        if count != expected:
            raise RefusedError(f"job {sent.job_id} tells of {expected} {status} items and lists {count}")
        return count


def select_rows(
    rows: Iterable[Row], numbers: Sequence[int], write: Callable[[bytes], None]
) -> tuple[array[int], list[Row]]:
    """Write the items of these rows, one a line; returns their numbers and the rows among them that are no items."""
    written, faulty = array("Q"), []
    at = 0
    for row in rows:
        if at == len(numbers):
            break
        if row.number != numbers[at]:
            continue
        at += 1
        if row.problem:
            faulty.append(row)
        else:
            write(flatten(row.item) + b"\n")
            written.append(row.number)
    return written, faulty


def _add_remedy(detail: str) -> str:
    """The service names the remedy in HTTP's words; here it is an option."""
    if "charset=windows-1252" in detail:
        return f"{detail} (with this command: --encoding windows-1252)"
    return detail
