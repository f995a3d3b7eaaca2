"""Bytes as text, in whatever encoding a file of the wild has."""

import codecs
import re
from typing import Final

from app.files.json_document import MalformedBody

BOMS: Final = (
    # UTF-32 first: its little-endian mark begins with the one of UTF-16.
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
UTF_8: Final = "utf-8"
_MARKED: Final = "utf-16"
CHARSETS: Final = {
    "utf-8": UTF_8,
    "utf8": UTF_8,
    "us-ascii": UTF_8,
    "utf-16": _MARKED,
    "utf-16le": "utf-16-le",
    "utf-16be": "utf-16-be",
    "windows-1252": "cp1252",
    "cp1252": "cp1252",
    # What calls itself Latin-1 is Windows-1252 (WHATWG Encoding Standard, 4.2): the difference are control
    # characters that nobody means.
    "iso-8859-1": "cp1252",
    "latin1": "cp1252",
    "iso-8859-15": "iso8859-15",
}
"""`charset` of a content type, in lower case → Python's codec."""

WORKBOOK: Final = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
"""The media type of an XLSX."""

_HEAD: Final = 4
_CODEC_NAMES: Final = {"cp1252": "Windows-1252", "iso8859-15": "ISO-8859-15"}
_TEXTUAL: Final = re.compile(r"[^\W\d_]|[€‚„…‘’“”•–—™«»§°±²³´·¿¡£¥©®ªº½¼¾\u00a0]")  # noqa: RUF001
_FOREIGN: Final = (
    (b"PK\x03\x04", "a workbook (XLSX, ODS) or a ZIP archive", "{workbook}, and save the sheet of any other as CSV"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook (XLS)", "save it as an Excel workbook (.xlsx) or as CSV"),
    (b"%PDF", "a PDF", "save the table as CSV and send that"),
)
_COMPRESSED: Final = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}


def describe_foreign(
    head: bytes,
    unpack: str = "send it with Content-Encoding: {0}",
    workbook: str = f"send an XLSX with Content-Type: {WORKBOOK}",
) -> str | None:
    """What a file is that begins so and is no text, and what to do instead; `unpack` says it for a compressed one,
    `workbook` for a workbook."""
    for begin, kind, advice in _FOREIGN:
        if head.startswith(begin):
            return f"is {kind}, not text: {advice.format(workbook=workbook)}"
    for begin, codec in _COMPRESSED.items():
        if head.startswith(begin):
            return f"is compressed with {codec}: {unpack.format(codec)}"
    return None


def refuse_foreign(head: bytes) -> None:
    """
    Raises:
        MalformedBody: the first four bytes are those of a file that is no text.
    """
    if description := describe_foreign(head):
        raise MalformedBody(f"the body {description}", 0)


class UndecodableText(MalformedBody):
    """Some bytes are no text in the file's encoding; `line` counts from 1.

    `before` is the valid text before them that was not yet returned.
    """

    def __init__(self, detail: str, offset: int, line: int, before: str = "") -> None:
        super().__init__(detail, offset)
        self.line = line
        self.before = before


class Decoder:
    """Bytes → text without a byte order mark. A mark outranks the declared charset (WHATWG, "BOM sniff").

    Raises:
        UndecodableText: from `feed` and `finish`, at the first byte that is no text; the machine is done then.
        MalformedBody: it begins as a workbook or an archive does.
    """

    def __init__(self, charset: str = UTF_8) -> None:
        """`charset`: a codec of `CHARSETS`."""
        self._charset = charset
        self._head: bytes | None = b""
        self._taken = 0
        """Bytes that went into the codec or were the mark."""
        self._line_ends = 0
        self._after_cr = False
        self._codec: codecs.IncrementalDecoder | None = None

    def feed(self, data: bytes) -> str:
        if self._head is not None:
            self._head += data
            if len(self._head) < _HEAD:
                return ""
            data, self._head = self._skip_mark(self._head), None
        return self._decode(data, final=False)

    def finish(self) -> str:
        data = b""
        if self._head is not None:
            data, self._head = self._skip_mark(self._head), None
        return self._decode(data, final=True)

    def _skip_mark(self, head: bytes) -> bytes:
        refuse_foreign(head)
        for mark, name in BOMS:
            if head.startswith(mark):
                self._charset = name
                self._taken = len(mark)
                head = head[len(mark) :]
                break
        else:
            if self._charset == _MARKED and head:
                raise UndecodableText(
                    "the text was said to be UTF-16, but it does not begin with a byte order mark; "
                    "say charset=utf-16le or charset=utf-16be",
                    0,
                    1,
                )
        self._codec = codecs.getincrementaldecoder(self._charset)(errors="strict")
        return head

    def _decode(self, data: bytes, *, final: bool) -> str:
        assert self._codec is not None
        held = self._codec.getstate()[0]
        try:
            text = self._codec.decode(data, final)
        except UnicodeDecodeError as error:
            raise self._explain(error, held + data, self._taken - len(held)) from None
        self._taken += len(data)
        self._count(text)
        return text

    def _count(self, text: str) -> None:
        if text:
            self._line_ends += _count_line_ends(text) - (self._after_cr and text[0] == "\n")
            self._after_cr = text[-1] == "\r"

    def _explain(self, error: UnicodeDecodeError, data: bytes, start: int) -> UndecodableText:
        before = data[: error.start].decode(self._charset, "replace")
        self._count(before)
        offset, line = start + error.start, self._line_ends + 1
        bad = data[error.start : error.start + 1]
        name = _CODEC_NAMES.get(self._charset, self._charset.upper())
        detail = f"the byte 0x{bad.hex().upper()} at offset {offset}, in line {line}, is not {name} text"
        likely = guess_character(bad)
        if self._charset == UTF_8 and likely:
            detail += (
                f"; it looks like Windows-1252 ({likely!r} there), as spreadsheets write it: "
                "send it with charset=windows-1252 in the content type, or save the file as UTF-8"
            )
        else:
            detail += "; save the file as UTF-8, or name its charset in the content type"
        return UndecodableText(detail, offset, line, before)


def guess_character(byte: bytes) -> str | None:
    """What a byte that is no UTF-8 means in Windows-1252, if it is anything that is often written."""
    likely = byte.decode("cp1252", "replace")
    return likely if _TEXTUAL.match(likely) else None


def _count_line_ends(text: str) -> int:
    returns = text.count("\r")
    return text.count("\n") + (returns - text.count("\r\n") if returns else 0)
