"""A workbook as the ZIP that it is (ECMA-376, part 2): whether it is one at all, how large, and its sheets.

Everything here runs in the process that reads the workbook, before the library that reads its cells sees it.
"""

import posixpath
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from typing import IO, Final
from xml.parsers import expat

import msgspec

from app.files.workbook.protocol import Ask, Why, WorkbookError

PIECE: Final = 1 << 18
SAVE: Final = "open it in a spreadsheet program and save it as an Excel workbook (.xlsx), or save the sheet as CSV"

_MOST_PARTS: Final = 10_000
FREE_INFLATION: Final = 10_000_000
"""Bytes that may come out of however few."""
_SHOWN: Final = 30
_WORKBOOK: Final = "xl/workbook.xml"
_METHODS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_WHOLE: Final = re.compile(r"\.(xml|rels)$", re.I)
_SHEETS: Final = re.compile(r"xl/worksheets/[^/]+$", re.I)
_ODF: Final = re.compile(rb"application/vnd\.oasis\.opendocument\.(\w+)")
_ENCRYPTED: Final = "EncryptedPackage".encode("utf-16-le")
_OLD: Final = ("Workbook".encode("utf-16-le"), "Book".encode("utf-16-le"))
_OLE: Final = b"\xd0\xcf\x11\xe0"
_FAULTS: Final = (
    zipfile.BadZipFile,
    zlib.error,
    expat.ExpatError,
    EOFError,
    NotImplementedError,
    UnicodeError,
    OSError,
)
"""What a damaged ZIP or part of one raises."""


def unreadable(detail: str) -> WorkbookError:
    return WorkbookError(Why.UNREADABLE, detail)


class Tab(msgspec.Struct, frozen=True):
    """A sheet of cells."""

    name: str
    part: str
    """The name of its part of the package."""
    visible: bool


class Package:
    """An open workbook.

    Raises:
        WorkbookError: it is none, is damaged, or exceeds a limit.
    """

    def __init__(self, stream: IO[bytes], ask: Ask) -> None:
        size = stream.seek(0, 2)
        stream.seek(0)
        head = stream.read(512)
        if not head.startswith(b"PK"):
            raise unreadable(_describe(head, stream))
        try:
            self._zip = zipfile.ZipFile(stream)
        except _FAULTS as error:
            raise unreadable(
                f"the body is a workbook or another ZIP archive that is damaged or cut off ({size:,} bytes arrived): "
                "send it again"
            ) from error
        self.size = self._check(ask, size)
        """Bytes of all parts, uncompressed."""

    def _check(self, ask: Ask, packed: int) -> int:
        parts = self._zip.infolist()
        names = {part.filename for part in parts}
        if _WORKBOOK not in names:
            raise unreadable(self._describe_archive(names))
        if len(parts) > _MOST_PARTS:
            raise WorkbookError(Why.TOO_LARGE, f"the workbook has more than {_MOST_PARTS:,} parts; {SAVE}")
        twice = [name for name, count in Counter(name.lower() for name in names).items() if count > 1]
        sound = all(part.compress_type in _METHODS and not part.flag_bits & 1 for part in parts)
        if twice or len(names) < len(parts) or not sound:
            raise unreadable(f"the workbook is damaged: it is no archive as spreadsheet programs write it; {SAVE}")
        size = sum(part.file_size for part in parts)
        if size > ask.most_bytes:
            raise WorkbookError(
                Why.TOO_LARGE,
                f"the workbook has {size:,} bytes uncompressed, and at most {ask.most_bytes:,} are read; "
                f"save the sheet as CSV and send that{ask.remedy}",
            )
        if size > max(FREE_INFLATION, ask.most_inflation * packed):
            raise WorkbookError(
                Why.TOO_LARGE,
                f"the workbook inflates to more than {ask.most_inflation:g} times its size; save the sheet as CSV and "
                "send that",
            )
        return size

    def _describe_archive(self, names: set[str]) -> str:
        if "xl/workbook.bin" in names:
            return "the body is a binary Excel workbook (XLSB): save it as an Excel workbook (.xlsx) or as CSV"
        kinds = {"word/document.xml": "a Word document", "ppt/presentation.xml": "a presentation"}
        for name, kind in kinds.items():
            if name in names:
                return f"the body is {kind}, not a workbook: save its table in a workbook or as CSV, and send that"
        if "mimetype" in names:
            with self._guard(), self._zip.open("mimetype") as part:
                found = _ODF.match(part.read(200))
            if found:
                kind = "a spreadsheet" if found[1] == b"spreadsheet" else "a document"
                return f"the body is {kind} of OpenDocument: save the sheet as an Excel workbook (.xlsx) or as CSV"
        return "the body is a ZIP archive that holds no workbook: unpack it, and send the files that are in it"

    def tabs(self) -> list[Tab]:
        """The sheets that have cells, in their order; charts are none."""
        targets = {
            attributes.get("Id", ""): attributes
            for name, attributes in self._elements("xl/_rels/workbook.xml.rels")
            if name == "Relationship"
        }
        found: list[Tab] = []
        for name, attributes in self._elements(_WORKBOOK):
            if name != "sheet":
                continue
            link = next((value for key, value in attributes.items() if key.rpartition(":")[2] == "id"), "")
            target = targets.get(link, {})
            if target.get("Type", "").endswith("/worksheet"):
                visible = attributes.get("state", "visible") == "visible"
                found.append(Tab(attributes.get("name", ""), _resolve(target.get("Target", "")), visible))
        if len({tab.name for tab in found}) < len(found):
            raise unreadable(f"the workbook is damaged: two of its sheets have one name; {SAVE}")
        return found

    def verify(self) -> None:
        """Inflate what is read beside the sheets, so that no part is larger than the directory says it is."""
        for name in self._zip.namelist():
            if _WHOLE.search(name) and not _SHEETS.match(name):
                for _ in self.read(name):
                    pass

    def read(self, part: str) -> Iterator[bytes]:
        """Its bytes, uncompressed, some at a time; checked against its size and checksum."""
        with self._guard():
            if part not in self._zip.namelist():
                raise zipfile.BadZipFile(f"there is no part {part[:80]!r}")
            with self._zip.open(part) as stream:
                while piece := stream.read(PIECE):
                    yield piece

    def _elements(self, part: str) -> Iterator[tuple[str, dict[str, str]]]:
        """Local names and attributes."""
        found: list[tuple[str, dict[str, str]]] = []
        parser = open_parser()
        parser.StartElementHandler = lambda name, attributes: found.append((name.rpartition(":")[2], attributes))
        self.parse(parser, part)
        yield from found

    def parse(self, parser: expat.XMLParserType, part: str) -> None:
        with self._guard():
            for piece in self.read(part):
                parser.Parse(piece, False)
            parser.Parse(b"", True)

    def _guard(self) -> "_Guard":
        return _Guard()


class _Guard:
    """Turns what a damaged archive raises into a refusal."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, _FAULTS):
            raise unreadable(f"the workbook is damaged or cut off ({str(error)[:200]}); {SAVE}") from error


def open_parser() -> expat.XMLParserType:
    """One that takes no declarations: a workbook has no entities, and what they could do is not tried out."""
    parser = expat.ParserCreate()

    def refuse(*_: object) -> None:
        raise unreadable(f"the workbook is damaged: one of its parts declares a document type; {SAVE}")

    parser.StartDoctypeDeclHandler = refuse
    return parser


def choose(tabs: list[Tab], wanted: str) -> list[Tab]:
    """The sheets that may be meant: the one of this name or number, or all that are visible.

    Raises:
        WorkbookError: there is none.
    """
    if not wanted:
        return [tab for tab in tabs if tab.visible]
    found = [tab for tab in tabs if tab.name == wanted] or [
        tab for tab in tabs if tab.name.casefold() == wanted.casefold()
    ]
    if not found and wanted.isascii() and wanted.isdigit() and 0 < int(wanted[:9]) <= len(tabs):
        found = [tabs[int(wanted[:9]) - 1]]
    if found:
        return found[:1]
    names = [f"{number}. {tab.name!r}{'' if tab.visible else ' (hidden)'}" for number, tab in enumerate(tabs, 1)]
    more = ", …" if len(names) > _SHOWN else ""
    raise WorkbookError(
        Why.NO_SHEET,
        f"sheet={wanted[:80]}: the workbook has no such sheet; its sheets are: {', '.join(names[:_SHOWN])}{more}",
    )


def _resolve(target: str) -> str:
    """The part that a relationship of the workbook names."""
    return posixpath.normpath(target[1:] if target.startswith("/") else posixpath.join("xl", target))


def _describe(head: bytes, stream: IO[bytes]) -> str:
    """What a file is that is no ZIP, and what to do."""
    if not head:
        return "the body is empty: send the workbook (.xlsx) as it is"
    if head.startswith(_OLE):
        stream.seek(0)
        contents = stream.read()
        if _ENCRYPTED in contents:
            return "the workbook is protected with a password: save it without one, or save the sheet as CSV"
        kind = "an old Excel workbook (XLS)" if any(name in contents for name in _OLD) else "an old Office document"
        return f"the body is {kind}: save it as an Excel workbook (.xlsx) or as CSV"
    if head.startswith(b"%PDF"):
        return "the body is a PDF, not a workbook: save the table as CSV and send that"
    if head.startswith((b"\x1f\x8b", b"\x28\xb5\x2f\xfd")):
        codec = "gzip" if head.startswith(b"\x1f") else "zstd"
        return f"the body is compressed with {codec}: send it with Content-Encoding: {codec}"
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return f"the body is HTML or XML, not a workbook, whatever its name says: {SAVE}"
    if head[:2] in (b"\xff\xfe", b"\xfe\xff") or not any(byte < 9 or 13 < byte < 32 for byte in head):
        return "the body is text, not a workbook: send a CSV with Content-Type: text/csv"
    return f"the body is not a workbook (.xlsx): {SAVE}"
