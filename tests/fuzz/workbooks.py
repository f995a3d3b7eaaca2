"""Workbooks of items, mutated as cells, as XML, as parts and as an archive."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Final
from xml.sax.saxutils import escape

from tests.workbooks import SHEET, patch, raw

Flip = Callable[[random.Random, bytes], bytes]

_CELLS: Final = (
    "<v>{}</v>", "<v>1</v>", "<v>1e400</v>", "<v>NaN</v>", "<v></v>", "<f>A1</f><v>2</v>", "<f>A1</f>", "<is/>", "",
    "<is><r><t>a</t></r><r><t>b</t></r></is>", "<is><t>&x;</t></is>", "<v>99999999999</v>", "<v>-1</v>", "<v>0.5</v>",
    "<is><t>_x0000__xD800_</t></is>", "<v>#N/A</v>", "<v>2026-02-30T25:00:00</v>", "<c><c><v>1</v></c></c>",
)  # fmt: skip
_TYPES: Final = ("s", "e", "b", "d", "n", "str", "inlineStr", "x", "")
_REFERENCES: Final = ("A1", "XFD1048576", "XFE1", "A0", "A1048577", "ZZZZZ9", "1", "", "a1", "\u0411 1", "C3", "B9999")
_PARTS: Final = (
    SHEET, "xl/workbook.xml", "xl/_rels/workbook.xml.rels", "xl/styles.xml", "xl/sharedStrings.xml",
    "[Content_Types].xml",
)  # fmt: skip


def write_workbook(dice: random.Random, rows: list[list[Any]], flip: Flip) -> bytes:
    """A workbook that has these rows, more or less."""
    xml = "".join(_row(dice, line, row) for line, row in enumerate(rows, 1))
    before = '<!DOCTYPE a [<!ENTITY x "y">]>' if dice.random() < 0.05 else ""
    if dice.random() < 0.2:
        xml = flip(dice, xml.encode()).decode("utf-8", "replace")
    body = raw(xml, before)
    if dice.random() < 0.3:
        part = dice.choice(_PARTS)
        body = patch(body, {part: dice.choice((b"", None, b"<a/>", flip(dice, b"<a><b c='d'>e</b></a>")))})
    return body


def _row(dice: random.Random, line: int, row: list[Any]) -> str:
    number = f' r="{line if dice.random() < 0.95 else dice.choice((0, 7, 1048577, 2**32))}"'
    return f"<row{number if dice.random() < 0.9 else ''}>{''.join(_cell(dice, value) for value in row)}</row>"


def _cell(dice: random.Random, value: Any) -> str:
    if dice.random() < 0.9:
        text = escape(str(value).replace("\0", "").encode("utf-8", "replace").decode())
        return f'<c t="inlineStr"><is><t>{text}</t></is></c>'
    place = f' r="{dice.choice(_REFERENCES)}"' if dice.random() < 0.3 else ""
    return f'<c{place} s="{dice.randrange(3)}" t="{dice.choice(_TYPES)}">{dice.choice(_CELLS)}</c>'
