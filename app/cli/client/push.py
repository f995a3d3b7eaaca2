"""A whole push: send the file, wait for the destinations, tell how it ended."""

from __future__ import annotations

import random

import msgspec

from app.cli.client.batches import group_rows
from app.cli.client.clock import Clock, Patience
from app.cli.client.effects import wait_for_effects
from app.cli.client.http import Api
from app.cli.client.progress import Display
from app.cli.client.results import Note, Results
from app.cli.client.rows import Row, Source
from app.cli.client.summary import Outcome
from app.cli.client.uploader import SendOptions, Uploader
from app.domain.outcomes import ErrorCode, ItemStatus


class PushOptions(msgspec.Struct, frozen=True, kw_only=True):
    url: str
    key: str
    batch_size: int = 1_000
    patience: float = 300.0
    """Seconds; see `clock.Patience`."""
    first_contact: float | None = None
    """Seconds; see `http.Api`."""
    send: SendOptions


async def push(
    source: Source,
    options: PushOptions,
    results: Results,
    display: Display,
    *,
    clock: Clock,
    rng: random.Random | None = None,
) -> Outcome:
    """Send every row of the source and learn what became of it.

    Raises:
        RefusedError: the server refused a whole request for good; `results` has what was decided before.
    """
    began = clock.now()
    patience = Patience(clock, options.patience)

    def reject(row: Row) -> None:
        results.failed += 1
        results.add([Note(row.number, row.line, "", ItemStatus.FAILED, ErrorCode.INVALID_FIELD, row.problem)])

    def moved() -> None:
        display.show(results, source.position)

    batches = group_rows(source.rows(), size=options.batch_size, reject=reject)
    async with Api(
        options.url,
        options.key,
        clock=clock,
        patience=patience,
        notify=display.say,
        rng=rng,
        first_contact=options.first_contact,
    ) as api:
        uploader = Uploader(api, batches, results, options.send, clock=clock, patience=patience, moved=moved)
        moved()
        await uploader.run()
        moved()
        settled = not results.open_jobs()
        if not settled and patience.left() > 0:
            settled = await wait_for_effects(
                api,
                results,
                clock=clock,
                patience=patience,
                concurrency=options.send.concurrency,
                moved=moved,
            )
    exit_code = 1 if results.has_failures() else 0
    if not (uploader.complete and settled):
        exit_code = 3
    return Outcome(
        exit_code=exit_code,
        file=source.path,
        run=options.send.run,
        dry_run=options.send.dry_run,
        all_sent=uploader.all_answered,
        trouble=uploader.trouble,
        blank=source.blank,
        elapsed=clock.now() - began,
    )
