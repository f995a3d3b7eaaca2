"""What the user sees while rows are on their way: bars on a terminal, lines elsewhere, nothing when quiet."""

import sys
from collections.abc import Mapping
from typing import Final, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from app.cli.client.clock import Clock
from app.cli.client.wire import Job
from app.vocabulary.states import OPEN_STATES, JobState

Effects = Mapping[str, Mapping[str, int]]
"""Items by destination and state."""
LINE_INTERVAL: Final = 5.0
"""Seconds between two lines of plain progress."""


class Display:
    """Shows nothing; the others show it all."""

    def show_upload(self, position: int, size: int) -> None:
        """How much of the file has gone out."""

    def show_job(self, job: Job, effects: Effects) -> None:
        """The state of the job that has the file."""

    def say(self, text: str) -> None:
        """One thing the user should know now."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...


def counted(number: int, noun: str) -> str:
    """`1 row`, `2,000 rows`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def clean(text: str) -> str:
    """Text from a file or a server that cannot steer a terminal."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def count_effects(effects: Effects) -> list[tuple[str, int, int]]:
    """(destination, items settled, items) for each destination."""
    return [
        (name, sum(n for state, n in counts.items() if state not in OPEN_STATES), sum(counts.values()))
        for name, counts in sorted(effects.items())
        if name != "db"
    ]


def count_bytes(position: int, size: int) -> str:
    return f"{position / 1e6:,.1f} of {size / 1e6:,.1f} MB"


def describe_job(job: Job) -> str:
    """`12,000 of 50,000 items, 8,000/s, about 0:05 left`, as far as the job says."""
    if job.state in (JobState.RECEIVING, JobState.QUEUED):
        return str(job.state)
    items, rate, left = job.progress.items, job.progress.items_per_second, job.progress.expected_seconds
    text = f"{job.processed:,} of {counted(items, 'item')}" if items is not None else counted(job.processed, "item")
    if rate:
        text += f", {rate:,.0f}/s"
    if left and job.state == JobState.RUNNING:
        minutes, seconds = divmod(round(left), 60)
        text += f", about {minutes}:{seconds:02} left"
    return text


class Lines(Display):
    """For logs: a line now and then, on stderr."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last = clock.now()

    def show_upload(self, position: int, size: int) -> None:
        if self._is_due():
            self.say(f"{count_bytes(position, size)} uploaded")

    def show_job(self, job: Job, effects: Effects) -> None:
        if self._is_due():
            settled = [f"{name} {done:,}/{total:,}" for name, done, total in count_effects(effects)]
            self.say(", ".join([describe_job(job), *settled]))

    def _is_due(self) -> bool:
        if self._clock.now() - self._last < LINE_INTERVAL:
            return False
        self._last = self._clock.now()
        return True

    def say(self, text: str) -> None:
        print(clean(text), file=sys.stderr, flush=True)


class Bars(Display):
    """For people: a bar for the file and one for each destination, on stderr."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[state]}", markup=False),
            TimeElapsedColumn(),
            console=Console(stderr=True),
        )
        self._tasks: dict[tuple[str, bool], TaskID] = {}

    def show_upload(self, position: int, size: int) -> None:
        self._show("uploaded", position, max(1, size), count_bytes(position, size))

    def show_job(self, job: Job, effects: Effects) -> None:
        self._show("processed", job.processed, job.progress.items, describe_job(job))
        for name, done, total in count_effects(effects):
            self._show(clean(name), done, total, f"{done:,} of {total:,} settled", destination=True)

    def _show(self, name: str, done: int, total: int | None, state: str, *, destination: bool = False) -> None:
        key = (name, destination)
        if key not in self._tasks:
            self._tasks[key] = self._progress.add_task(name, total=total, state="")
        self._progress.update(self._tasks[key], total=total, completed=done, state=state)

    def say(self, text: str) -> None:
        self._progress.console.print(clean(text), markup=False, highlight=False)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()


def choose_display(clock: Clock, *, silent: bool) -> Display:
    if silent:
        return Display()
    return Bars() if sys.stderr.isatty() else Lines(clock)
