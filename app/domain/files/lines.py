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
        if not text:
            return []
        if not self._after_cr and "\n" not in text and "\r" not in text:
            self._keep(text)
            return []
        whole = "".join(self._parts) + text
        self._parts, self._size, self._after_cr = [], 0, False
        found = list(io.StringIO(whole, newline=""))
        # A `\r` at the end may be half of a `\r\n`.
        rest = "" if found[-1].endswith("\n") else found.pop()
        lines = [self._make(text) for text in found]
        if rest:
            self._keep(rest)
        return lines

    def finish(self) -> list[Line]:
        if not (self._parts or self._skipping):
            return []
        return [self._make("".join(self._parts))]

    def _make(self, text: str) -> Line:
        self.number += 1
        if self._skipping or (len(text) > MAX_LINE and len(text.rstrip("\r\n")) > MAX_LINE):
            self._skipping = False
            return Line(self.number, None)
        return Line(self.number, text)

    def _keep(self, rest: str) -> None:
        self._after_cr = rest.endswith("\r")
        self._size += len(rest) - self._after_cr
        if self._skipping or self._size > MAX_LINE:
            self._skipping = True
            self._parts = ["\r"] if self._after_cr else []
        else:
            self._parts.append(rest)
