"""The bytes of `{"items": […]}`, as they arrive → the bytes of each item.

An item that is not valid JSON is still cut out whole, as long as its quotes and brackets balance; nothing is held but
the item that is being read.
"""

import re
from collections.abc import Callable, Generator
from typing import Final

import msgspec

from app.files import json_document
from app.resources import json_scanner

MAX_ITEM: Final = 1_048_576
"""Bytes of an item; a longer one is passed over."""
_MAX_NAME: Final = 4_096
_HEAD: Final = 4
_IN_STRING: Final = re.compile(rb'(?:[^"\\]++|\\.)*+', re.S)
_OVERLAP: Final = 64
_WORTH: Final = 256
"""Bytes from which it is worth while to look for many items at once."""
_SCALARS: Final = re.compile(rb'(?:[^"\[\]{},]++,)++')

_split = msgspec.json.Decoder(list[msgspec.Raw]).decode

_Steps = Generator[None, None, None]
_Fault = Callable[[int], json_scanner.StructureError]


class LongItem(msgspec.Struct, frozen=True, gc=False):
    """One longer than `MAX_ITEM`; `offset` is where in the body it begins."""

    offset: int


class JsonItems:
    """Bytes → items.

    Raises:
        MalformedBody: from `feed` and `finish`, the machine is done then.
    """

    def __init__(self, longest: int = MAX_ITEM) -> None:
        """`longest`: bytes of an item; a longer one becomes a `LongItem`."""
        self._longest = longest
        self._data = b""
        self._at = 0
        """Where in `_data` reading goes on."""
        self._base = 0
        """Where in the body `_data` begins."""
        self._final = False
        self._sound = False
        """Whether what is there may be sound JSON: it was not looked at yet."""
        self._found: list[bytes | LongItem] = []
        self._steps = self._read()

    def feed(self, data: bytes) -> list[bytes | LongItem]:
        self._base += self._at
        self._data, self._at = self._data[self._at :] + data, 0
        self._sound = True
        return self._go_on()

    def finish(self) -> list[bytes | LongItem]:
        self._final = True
        return self._go_on()

    def _go_on(self) -> list[bytes | LongItem]:
        try:
            next(self._steps, None)
        except json_scanner.StructureError as broken:
            raise json_document.uncertain(broken) from None
        found, self._found = self._found, []
        return found

    @property
    def _offset(self) -> int:
        return self._base + self._at

    def _peek(self) -> Generator[None, None, bytes]:
        """The next byte that is no white space; nothing at the end."""
        while True:
            self._at = json_scanner.skip_space(self._data, self._at)
            if self._at < len(self._data) or self._final:
                return self._data[self._at : self._at + 1]
            yield

    def _read(self) -> _Steps:
        while len(self._data) < _HEAD and not self._final:
            yield
        head = self._data[:_HEAD]
        if head.startswith(json_document.BOM):
            self._at = len(json_document.BOM)
        found = yield from self._peek()
        if found != b"{":
            raise json_document.no_object(head, found, self._offset)
        self._at += 1
        yield from self._read_name(seen=False)
        yield from self._read_array()
        found = yield from self._peek()
        if found == b",":
            self._at += 1
            yield from self._read_name(seen=True)
        if found != b"}":
            raise json_document.unfinished(self._offset)
        self._at += 1
        if (yield from self._peek()):
            raise json_document.followed(self._offset)

    def _read_name(self, *, seen: bool) -> _Steps:
        """The name `items`, its colon, and the bracket that must follow."""
        found = yield from self._peek()
        start = self._offset
        if found != b'"':
            raise json_document.no_member(found, start, seen=seen)
        while (match := json_scanner.STRINGS.match(self._data, self._at)) is None:
            if self._final or len(self._data) - self._at > _MAX_NAME:
                raise json_document.no_member(found, start, seen=seen)
            yield
        self._at = match.end()
        name = match[0]
        if (yield from self._peek()) != b":":
            raise json_document.no_member(found, start, seen=seen)
        self._at += 1
        found = yield from self._peek()
        json_document.check_name(name, start, seen=seen)
        if found != b"[":
            raise json_document.no_array(self._offset)
        self._at += 1

    def _read_array(self) -> _Steps:
        """To the bracket that ends the items."""
        found = yield from self._peek()
        if found == b"]":
            self._at += 1
            return
        while True:
            if found in (b"{", b"[") and self._sound:
                self._sound = False
                if self._read_sound():
                    found = yield from self._peek()
            if found not in (b"{", b"["):
                self._read_scalars()
                found = yield from self._peek()
            start = self._offset
            if found in (b"]", b","):
                raise json_scanner.missing_value(start)
            item = _Span(start, self._longest)
            yield from self._read_container(item, found) if found in (b"[", b"{") else self._read_scalar(item)
            if item.size:
                self._found.append(item.finish())
            found = yield from self._peek()
            if found == b"]":
                self._at += 1
                return
            if found != b",":
                raise json_scanner.not_separated(self._offset, found, "]")
            self._at += 1
            found = yield from self._peek()

    def _read_sound(self) -> bool:
        """Many items at once, up to the last boundary of two in what is there, if all of it is sound JSON."""
        if not _WORTH < len(self._data) - self._at <= self._longest:
            return False
        end = self._data.rfind(b"},", self._at) + 1
        if end < self._at + _WORTH:
            return False
        try:
            raws = _split(b"[%b]" % self._data[self._at : end])
        except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
            return False
        for raw in raws:
            item = bytes(raw)
            self._at = self._data.index(item, self._at)
            self._found.append(item)
            self._at += len(item)
        self._at = end + 1
        return True

    def _read_scalars(self) -> None:
        """Scalars, as long as a comma follows each."""
        run = _SCALARS.match(self._data, self._at)
        for scalar in run[0][:-1].split(b",") if run else ():
            item = scalar.strip(b" \t\r\n")
            if not item or len(item) > self._longest:
                return
            self._found.append(item)
            self._at += len(scalar) + 1

    def _read_container(self, item: "_Span", opener: bytes) -> _Steps:
        depth = 1
        begin, at = self._at, self._at + 1
        while True:
            string = None
            for match in json_scanner.TO_BRACKETS.finditer(self._data, at):
                start, end = match.span(1)
                if start == end:
                    break
                byte = self._data[start]
                if byte == json_scanner.QUOTE:
                    string = start
                    break
                if byte in json_scanner.OPENING:
                    depth += end - start
                    if depth > json_scanner.MAX_DEPTH:
                        raise json_scanner.too_deep(item.start)
                elif end - start >= depth:
                    self._at = start + depth
                    item.add(self._data[begin : self._at])
                    return
                else:
                    depth -= end - start
            if string is not None:
                yield from self._read_string(item, begin, string, lambda at: json_scanner.never_closed(at, b'"'))
            elif self._final:
                raise json_scanner.never_closed(item.start, opener)
            else:
                yield from self._take_rest(item, begin)
            begin = at = self._at

    def _read_scalar(self, item: "_Span") -> _Steps:
        while True:
            begin = self._at
            match = json_scanner.SCALAR.match(self._data, begin)
            end = begin if match is None else match.end()
            if self._data[end : end + 1] == b'"':
                yield from self._read_string(item, begin, end, lambda at: json_scanner.not_separated(at, b'"', "]"))
            elif end == len(self._data) and not self._final:
                yield from self._take_rest(item, begin)
            else:
                item.add(self._data[begin:end])
                self._at = end
                return

    def _take_rest(self, item: "_Span", begin: int) -> _Steps:
        item.add(self._data[begin:])
        self._at = len(self._data)
        yield

    def _read_string(self, item: "_Span", begin: int, at: int, fault: _Fault) -> _Steps:
        """From `begin` to the end of the string that is opened at `at` and not closed in what is there."""
        start = self._base + at
        item.add(self._data[begin:at])
        begin, at = at, at + 1
        while True:
            match = _IN_STRING.match(self._data, at)
            end = at if match is None else match.end()
            if self._data[end : end + 1] == b'"':
                self._at = end + 1
                item.add(self._data[begin : self._at], within=True)
                return
            if self._final:
                raise fault(start)
            item.add(self._data[begin:end], within=True)
            self._at = end  # a backslash at the very end waits for what it escapes
            yield
            begin = at = self._at


class _Span:
    """An item while it is read: its bytes, or, once there are too many, the doubt whether it is one item only."""

    def __init__(self, start: int, longest: int) -> None:
        self.start = start
        self.size = 0
        self._longest = longest
        self._parts: list[tuple[bytes, bool]] = []
        self._doubt: _Doubt | None = None

    def add(self, data: bytes, *, within: bool = False) -> None:
        """`within`: it is a part of one string; else the strings in it are whole."""
        self.size += len(data)
        if self._doubt is not None:
            self._doubt.feed(data, within)
            return
        self._parts.append((data, within))
        if self.size > self._longest:
            self._doubt = _Doubt(self.start)
            for part in self._parts:
                self._doubt.feed(*part)
            self._parts.clear()

    def finish(self) -> bytes | LongItem:
        if self._doubt is not None:
            self._doubt.finish()
            return LongItem(self.start)
        data = b"".join([part for part, _ in self._parts]).rstrip(b" \t\r\n")
        json_document.check_certain(data, self.start)
        return data


class _Doubt:
    """What `envelope.check_certain` asks, of an item that nobody holds. It cannot be known whether such an
    item is valid JSON, so one with the boundary of two items inside a string is refused even if it is."""

    def __init__(self, start: int) -> None:
        self._start = start
        self._brackets = json_scanner.Brackets()
        self._tail = b""

    def feed(self, data: bytes, within: bool) -> None:
        if within:
            strings = self._tail + data
            self._tail = strings[-_OVERLAP:]
        else:
            strings = b"".join(json_scanner.STRINGS.findall(data))
            self._tail = b""
            self._brackets.feed(json_scanner.STRINGS.sub(b"", data))
        if not self._brackets.match or json_document.BOUNDARY.search(strings):
            raise json_document.run_together(self._start)

    def finish(self) -> None:
        if not self._brackets.closed:
            raise json_document.run_together(self._start)
