"""Text cut into numbered lines."""

from __future__ import annotations

import io
from typing import Final

import msgspec

MAX_LINE: Final = 1_048_576
"""Characters. A line may not grow without limit, or one missing line break would fill the memory."""


class Line(msgspec.Struct, frozen=True, gc=False):
    """One line with its line break, or `None` for a line longer than `MAX_LINE`; `number` counts from 1."""

    number: int
    text: str | None


class Lines:
    """Text → lines. `\\r`, `\\n` and `\\r\\n` end a line and are kept; no other character does."""

    def __init__(self) -> None:
        self.number = 0
        """Lines that came out so far."""
        self._parts: list[str] = []
        """The beginning of the next line; only its last character can be a `\\r`."""
        self._size = 0
        self._after_cr = False
        self._skipping = False

    def feed(self, text: str) -> list[Line]:
        first = self.number + 1
        return [Line(number, line) for number, line in enumerate(self.cut(text), first)]

    def cut(self, text: str) -> list[str | None]:
        """The lines that `feed` gives, without their numbers: the last one has the number `number`."""
        if not text:
            return []
        if not self._after_cr and "\n" not in text and "\r" not in text:
            self._keep(text)
            return []
        whole = "".join(self._parts) + text
        self._parts, self._size, self._after_cr = [], 0, False
        found: list[str | None] = list(io.StringIO(whole, newline=""))
        # A `\r` at the end may be half of a `\r\n`.
        rest = None if whole[-1] == "\n" else found.pop()
        if self._skipping or len(whole) > MAX_LINE:
            found = [self._measure(line) for line in found]
        self.number += len(found)
        if rest is not None:
            self._keep(rest)
        return found

    def finish(self) -> list[Line]:
        if not (self._parts or self._skipping):
            return []
        self.number += 1
        return [Line(self.number, self._measure("".join(self._parts)))]

    def _measure(self, line: str | None) -> str | None:
        """The line, unless it is too long."""
        assert line is not None
        if self._skipping or (len(line) > MAX_LINE and len(line.rstrip("\r\n")) > MAX_LINE):
            self._skipping = False
            return None
        return line

    def _keep(self, rest: str) -> None:
        self._after_cr = rest.endswith("\r")
        self._size += len(rest) - self._after_cr
        if self._skipping or self._size > MAX_LINE:
            self._skipping = True
            self._parts = ["\r"] if self._after_cr else []
        else:
            self._parts.append(rest)
