"""A file's bytes as numbered lines of text. Bytes that are no text never stop the reading: they are marked."""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterator
from typing import Final

import msgspec

from app.cli.client.errors import UsageError
from app.domain.files import lines
from app.domain.files.lines import MAX_LINE, Line
from app.domain.files.text import BOMS, guess_character

__all__ = [
    "MAX_LINE",
    "Encoding",
    "Line",
    "Lines",
    "check_text",
    "describe_marks",
    "find_encoding",
    "is_marked",
    "open_text",
    "read_head",
]

HEAD_BYTES: Final = 65_536
_MARKS: Final = "tranche-marks"
_SKIPPING: Final = {name: "utf-8-sig" if name == "utf-8" else name[: len("utf-16")] for _, name in BOMS}
"""The codecs that skip the mark that tells them."""
_CHUNK: Final = 65_536


def _mark(error: UnicodeError) -> tuple[str, int]:
    """Each undecodable byte becomes U+DC00 + byte, as `surrogateescape` does, but in every encoding."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "".join(chr(0xDC00 + byte) for byte in error.object[error.start : error.end]), error.end


codecs.register_error(_MARKS, _mark)


class Encoding(msgspec.Struct, frozen=True):
    """How a file's bytes are read, and how a file for the same command line is written."""

    name: str
    written: str

    @property
    def on_write(self) -> str:
        """The codec error rule that gives marked bytes back as they were, where the encoding can hold them."""
        return (
            "replace"
            if self.written.replace("-", "").lower().startswith(("utf16", "utf32"))
            else "surrogateescape"
        )


def find_encoding(head: bytes, asked: str | None) -> Encoding:
    """The encoding of a file that begins with `head`: as asked, else by its byte order mark, else UTF-8.

    Raises:
        UsageError: `asked` is no text encoding.
    """
    if asked is not None:
        try:
            name = codecs.lookup(asked).name
            "a".encode(name)
        except (LookupError, UnicodeError) as error:
            raise UsageError(
                f"--encoding {asked}: no such text encoding; examples: utf-8, windows-1252"
            ) from error
        return Encoding("utf-8-sig", "utf-8") if name == "utf-8" else Encoding(name, name)
    for bom, name in BOMS:
        if head.startswith(bom):
            # A mark asks for a mark: programs that need it to see UTF-8 will read the failed rows as well.
            return Encoding(_SKIPPING[name], "utf-8-sig")
    return Encoding("utf-8-sig", "utf-8")


def is_marked(text: str) -> bool:
    """Whether the text holds bytes that could not be decoded."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def describe_marks(text: str, encoding: str) -> str:
    """Which byte is no text, and what to try."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = ord(text[error.start]) - 0xDC00
        byte = bytes([code]) if 0 <= code <= 0xFF else None
        shown = f"the byte 0x{code:02X}" if byte else "a lone surrogate"
        name = "utf-8" if encoding == "utf-8-sig" else encoding
        likely = guess_character(byte) if byte and name == "utf-8" else None
        if likely:
            return (
                f"{shown} is not {name} text; it looks like Windows-1252 ({likely!r} there), as spreadsheets write it: "
                "say --encoding windows-1252, or save the file as UTF-8"
            )
        return f"{shown} is not {name} text; save the file as UTF-8, or say its --encoding"
    return ""


def check_text(path: str, encoding: Encoding, *, name: str) -> None:
    """
    Raises:
        UsageError: some bytes of the file, which the user calls `name`, are no text in its encoding.
    """
    machine = lines.Lines()
    with open(path, "rb") as stream:
        text = open_text(stream, encoding)
        while chunk := text.read(_CHUNK):
            if is_marked(chunk):
                sound = re.split("[\ud800-\udfff]", chunk, maxsplit=1)[0]
                machine.cut(f"{sound}x")  # a "\r" before it ends its line
                raise UsageError(
                    f"{name}, line {machine.number + 1}: {describe_marks(chunk, encoding.name)}; nothing was sent"
                )
            machine.cut(chunk)


def open_text(stream: io.BufferedReader, encoding: Encoding) -> io.TextIOWrapper:
    """The stream as text with its line breaks, and with marks where it is none."""
    return io.TextIOWrapper(stream, encoding=encoding.name, errors=_MARKS, newline="")


class Lines:
    """The numbered lines of a binary stream; `\\r`, `\\n` and `\\r\\n` end a line and are kept."""

    def __init__(self, stream: io.BufferedReader, encoding: Encoding) -> None:
        self._stream = stream
        self._text = open_text(stream, encoding)
        self._machine = lines.Lines()

    @property
    def position(self) -> int:
        return self._stream.tell()

    def __iter__(self) -> Iterator[Line]:
        while chunk := self._text.read(_CHUNK):
            yield from self._machine.feed(chunk)
        yield from self._machine.finish()


def read_head(path: str) -> bytes:
    """The first bytes of a file, enough to tell format, encoding and delimiter.

    Raises:
        UsageError: the file cannot be read.
    """
    try:
        with open(path, "rb") as stream:
            return stream.read(HEAD_BYTES)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from error
