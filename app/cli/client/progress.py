"""What the user sees while rows are on their way: bars on a terminal, lines elsewhere, nothing when quiet."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Final, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from app.cli.client.clock import Clock
from app.cli.client.results import Results
from app.domain.outcomes import OPEN_STATES

LINE_INTERVAL: Final = 5.0
"""Seconds between two lines of plain progress."""


class Display(Protocol):
    def show(self, results: Results, position: int) -> None:
        """The state of things; `position` is the number of bytes of the file that were read."""
        ...

    def say(self, text: str) -> None:
        """One thing the user should know now."""
        ...

    def __enter__(self) -> Display: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def clean(text: str) -> str:
    """Text from a file or a server that cannot steer a terminal."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def count_rows(results: Results) -> str:
    text = f"{results.ok.total():,} ok, {results.failed:,} failed"
    return f"{text}, {results.retry:,} to send again" if results.retry else text


def count_effects(results: Results) -> list[tuple[str, int, int]]:
    """(destination, items settled, items) for each destination that the jobs told of so far."""
    return [
        (name, sum(n for state, n in counts.items() if state not in OPEN_STATES), counts.total())
        for name, counts in sorted(results.effects().items())
        if name != "db"
    ]


class Silence:
    def show(self, results: Results, position: int) -> None: ...

    def say(self, text: str) -> None: ...

    def __enter__(self) -> Silence:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Lines(Silence):
    """For logs: a line now and then, on stderr."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last = clock.now()

    def show(self, results: Results, position: int) -> None:
        if self._clock.now() - self._last < LINE_INTERVAL:
            return
        self._last = self._clock.now()
        synced = [f"{name} {done:,}/{total:,}" for name, done, total in count_effects(results)]
        self.say(", ".join([count_rows(results), *synced]))

    def say(self, text: str) -> None:
        print(clean(text), file=sys.stderr, flush=True)


class Bars:
    """For people: a bar for the file and one for each destination, on stderr."""

    def __init__(self, size: int) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[state]}", markup=False),
            TimeElapsedColumn(),
            console=Console(stderr=True),
        )
        self._size = size
        self._file: TaskID | None = None
        self._destinations: dict[str, TaskID] = {}

    def show(self, results: Results, position: int) -> None:
        if self._file is None:
            self._file = self._progress.add_task("sent", total=max(1, self._size), state="")
        self._progress.update(self._file, completed=min(position, self._size), state=count_rows(results))
        for name, done, total in count_effects(results):
            if name not in self._destinations:
                self._destinations[name] = self._progress.add_task(clean(name), total=total, state="")
            self._progress.update(
                self._destinations[name], total=total, completed=done, state=f"{done:,} of {total:,} settled"
            )

    def say(self, text: str) -> None:
        self._progress.console.print(clean(text), markup=False, highlight=False)

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
