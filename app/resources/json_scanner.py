"""Finding where JSON values begin and end without understanding them.

Used after a parser has failed: a parser fails a whole body for one bad value, and recursion fails for one deep
value. Here only quotes, brackets and commas count, every scan is linear, and nothing recurses.
"""

import re
from typing import Final

_STRING: Final = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
STRINGS: Final = re.compile(_STRING, re.S)
SPACE: Final = re.compile(rb"[ \t\r\n]*+")
MEMBER_NAME: Final = re.compile(rb"(" + _STRING + rb")[ \t\r\n]*+:[ \t\r\n]*+", re.S)
SCALAR: Final = re.compile(rb'(?:[^"\[\]{},]++|' + _STRING + rb")*+", re.S)
FLAT: Final = rb'[^"\[\]{}]++|' + _STRING
_PAIR: Final = rb"[\[{](?:" + FLAT + rb")*+[\]}]"
_PAIR_OF_PAIRS: Final = rb"[\[{](?:" + FLAT + rb"|" + _PAIR + rb")*+[\]}]"
# The innermost two levels are passed over inside the expression: Python turns only for deeper brackets.
TO_BRACKETS: Final = re.compile(rb"(?:" + FLAT + rb"|" + _PAIR_OF_PAIRS + rb')*+([\[{]++|[\]}]++|"|\Z)', re.S)
OPENING: Final = frozenset(b"[{")
_NO_BRACKETS: Final = bytes(byte for byte in range(256) if byte not in b"[]{}")
QUOTE: Final = ord('"')
MAX_DEPTH: Final = 100_000
"""No item that is small enough to be accepted is as deep; 5 MB of `[1,` would take a second to count."""


class StructureError(ValueError):
    """The bytes have no certain structure from `offset` on; `detail` says what is there."""

    def __init__(self, offset: int, detail: str) -> None:
        super().__init__(detail)
        self.offset = offset
        self.detail = detail


class LimitError(ValueError):
    """More values than the caller allows."""


def skip_space(data: bytes, offset: int) -> int:
    """Offset of the first byte at or after `offset` that is not JSON white space."""
    return SPACE.match(data, offset).end()  # type: ignore[union-attr]  # it matches nothing as well


def _end_of_container(data: bytes, offset: int) -> int:
    """Offset just after the bracket that balances the one at `offset`; kinds of brackets are not compared."""
    depth = 1
    for match in TO_BRACKETS.finditer(data, offset + 1):
        start, end = match.span(1)
        if start == end:
            break
        byte = data[start]
        if byte in OPENING:
            depth += end - start
            if depth > MAX_DEPTH:
                raise too_deep(offset)
        elif byte == QUOTE:
            raise never_closed(start, b'"')
        elif end - start >= depth:
            return start + depth
        else:
            depth -= end - start
    raise never_closed(offset, data[offset : offset + 1])


class Brackets:
    """Whether every bracket is closed by one of its kind, in text without strings that comes piece by piece."""

    def __init__(self) -> None:
        self._pending: list[int] = []
        self.match = True

    @property
    def closed(self) -> bool:
        """All that were opened are closed."""
        return self.match and not self._pending

    def feed(self, text: bytes) -> None:
        pending = self._pending
        for byte in text.translate(None, _NO_BRACKETS):
            if byte in OPENING:
                pending.append(byte + 2)  # "[" and "]", "{" and "}" lie two apart in ASCII
            elif not pending or pending.pop() != byte:
                self.match = False
                return


def brackets_match(data: bytes) -> bool:
    """Whether every bracket outside strings is closed by one of its kind."""
    brackets = Brackets()
    brackets.feed(STRINGS.sub(b"", data))
    return brackets.closed


def too_deep(offset: int) -> StructureError:
    """Of the container at `offset`."""
    return StructureError(offset, "more brackets are opened one inside the other than can be counted")


def never_closed(offset: int, opener: bytes) -> StructureError:
    """Of a container or string that begins at `offset`."""
    if opener == b'"':
        return StructureError(offset, "the string that begins here is never closed")
    return StructureError(offset, f"the '{opener.decode()}' here is never closed")


def not_separated(offset: int, found: bytes, closer: str) -> StructureError:
    """For the text at `offset`, where a comma or the `closer` should be; nothing is found at the end."""
    if not found:
        return StructureError(offset, f"the end came before the closing '{closer}'")
    if found == b'"':
        return StructureError(offset, "the string that begins here is never closed, or a comma is missing before it")
    return StructureError(offset, f"',' or '{closer}' was expected here")


def missing_value(offset: int) -> StructureError:
    return StructureError(offset, "a value is missing before this place")


def split_values(data: bytes, offset: int, *, closer: str, limit: int) -> tuple[list[tuple[int, int]], int]:
    """Spans of the comma-separated values from `offset` to the `closer` of their container, and its offset.

    With `closer` "}" a value is a whole member, `"name": value`.

    Raises:
        StructureError: not closed, a value is missing, or something is between two values.
        LimitError: more than `limit` values.
    """
    end_byte = ord(closer)
    spans: list[tuple[int, int]] = []
    while True:
        start = skip_space(data, offset)
        opened = data[start : start + 1] in (b"[", b"{")
        end = start if opened else SCALAR.match(data, start).end()  # type: ignore[union-attr]  # may be empty
        if opened or (closer == "}" and data[end : end + 1] in (b"[", b"{")):
            end = _end_of_container(data, end)
        after = skip_space(data, end)
        byte = data[after] if after < len(data) else -1
        if end == start:
            if byte == end_byte and not spans:
                return spans, after
            if byte in (end_byte, ord(",")):
                raise missing_value(start)
        else:
            while data[end - 1] in b" \t\r\n":
                end -= 1
            spans.append((start, end))
            if len(spans) > limit:
                raise LimitError
        if byte == end_byte:
            return spans, after
        if byte != ord(","):
            raise not_separated(after, data[after : after + 1], closer)
        offset = after + 1
