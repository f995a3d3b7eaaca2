"""NDJSON and JSON files as rows. Items travel as they stand in the file, byte for byte."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import msgspec

from app.cli.client.errors import UsageError
from app.cli.client.progress import clean
from app.cli.client.rows import Row
from app.cli.client.text import MAX_LINE, Encoding, Line, Lines, describe_marks


def _inspect(item: bytes) -> tuple[str, str]:
    """The item's key and what is wrong with it as JSON (only what would break the batch around it)."""
    try:
        decoded: Any = msgspec.json.decode(item)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return "", f"not valid JSON: {error}"
    except RecursionError:
        return "", "not usable JSON: nested too deeply"
    if not isinstance(decoded, dict):
        return "", "not a JSON object"
    key = decoded.get("id", "")
    return (key if isinstance(key, str) else ""), ""


class NdjsonSource:
    """One item a line; blank lines are skipped."""

    def __init__(self, path: str, encoding: Encoding) -> None:
        self.path = path
        self.encoding = encoding
        self.blank = 0
        self.position = 0

    def rows(self) -> Iterator[Row]:
        self.blank = self.position = 0
        number = 0
        with open(self.path, "rb") as stream:
            lines = Lines(stream, self.encoding)
            for line in lines:
                self.position = lines.position
                if line.text is not None and not line.text.strip():
                    self.blank += 1
                    continue
                yield self._build(number, line)
                number += 1
            self.position = lines.position

    def _build(self, number: int, line: Line) -> Row:
        if line.text is None:
            return Row(number, line.number, problem=f"the line is longer than {MAX_LINE:,} characters")
        text = line.text.strip("\r\n")
        try:
            item = text.strip().encode()
        except UnicodeEncodeError:
            problem = describe_marks(text, self.encoding.name)
            return Row(number, line.number, problem=problem, original=text)
        key, problem = _inspect(item)
        if problem:
            return Row(number, line.number, problem=problem, original=text)
        return Row(number, line.number, item, key, original=text)


def _find_list(body: bytes) -> str:
    """What to do about a document whose items have another name than `items`."""
    try:
        members: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    lists = (
        [name for name, value in members.items() if isinstance(value, list)]
        if isinstance(members, dict)
        else []
    )
    return f'the items are in "{clean(lists[0])}": rename it "items"' if len(lists) == 1 else ""


class _Body(msgspec.Struct):
    items: list[msgspec.Raw]


class JsonSource:
    """`{"items": […]}` or a bare array. The file is read whole: JSON cannot be cut without parsing it.

    Raises:
        UsageError: the file is no such JSON.
    """

    def __init__(self, path: str, encoding: Encoding) -> None:
        self.path = path
        self.encoding = encoding
        self.blank = 0
        self.position = 0
        self._items: list[msgspec.Raw] = self._read()

    def _read(self) -> list[msgspec.Raw]:
        with open(self.path, "rb") as stream:
            body = self._to_utf8(stream)
        try:
            if body.lstrip()[:1] == b"[":
                return msgspec.json.decode(body, type=list[msgspec.Raw])
            return msgspec.json.decode(body, type=_Body).items
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UsageError(
                f'{self.path}: {_find_list(body) or error}; a JSON file is {{"items": [...]}} or an array of items, '
                "and one item a line is --format ndjson"
            ) from error
        except RecursionError as error:
            raise UsageError(f"{self.path}: nested too deeply") from error

    def _to_utf8(self, stream: io.BufferedReader) -> bytes:
        body = stream.read()
        if self.encoding.name == "utf-8-sig":
            return body.removeprefix(b"\xef\xbb\xbf")
        try:
            return body.decode(self.encoding.name).encode()
        except UnicodeError as error:
            raise UsageError(f"{self.path}: not {self.encoding.name} text: {error}") from error

    def items(self) -> list[bytes]:
        """Every item as it stands in the file."""
        return [bytes(raw) for raw in self._items]

    def rows(self) -> Iterator[Row]:
        for number, raw in enumerate(self._items):
            item = bytes(raw)
            key, problem = _inspect(item)
            text = item.decode(errors="surrogateescape")
            yield Row(number, number + 1, b"" if problem else item, key, problem, text)
        with open(self.path, "rb") as stream:
            self.position = stream.seek(0, io.SEEK_END)
