"""What commands print: tables and lines for a reader, JSON for a program."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any, Final, TypeVar

import msgspec
import rich_click as click
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.cli.client.progress import clean

T = TypeVar("T")

_PIPE: Final = 1_000
"""Columns of a line that is no window's."""

json_option: Final = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
lines_option: Final = click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")


def show(value: Any, lines: Iterable[str], *, as_json: bool) -> None:
    """Print `value` as JSON, encoded bytes as they are; or the lines, which are not read otherwise."""
    if as_json:
        print((value if isinstance(value, bytes) else msgspec.json.encode(value)).decode())
    else:
        for line in lines:
            print(clean(line))


def show_table(
    value: Any, columns: Sequence[str], rows: Iterable[Sequence[object]], *, as_json: bool, whole: str = ""
) -> None:
    """Print `value` as JSON, or a table, for which see `print_table`."""
    if as_json:
        show(value, (), as_json=True)
    else:
        print_table(columns, rows, whole=whole)


async def print_rows(
    rows: AsyncIterator[msgspec.Raw],
    limit: int | None,
    columns: Sequence[str],
    describe: Callable[[dict[str, Any]], Sequence[object]],
    *,
    as_json: bool,
    whole: str = "",
) -> None:
    """The first `limit` of `rows` as a table, for which see `print_table`; or as they came, one object a line."""
    cells = []
    async for raw in take_some(rows, limit):
        if as_json:
            print(bytes(raw).decode())
        else:
            cells.append(describe(msgspec.json.decode(raw)))
    if not as_json:
        print_table(columns, cells, whole=whole)


async def take_some(items: AsyncIterator[T], limit: int | None) -> AsyncIterator[T]:
    """The first `limit`, or all."""
    count = 0
    async for item in items:
        yield item
        count += 1
        if count == limit:
            return


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, whole: str = "") -> None:
    """Nothing of it is cut off: in a narrow window cells go on below, and in a pipe there is no window.

    Cells of the column `whole` stay on one line: half an id is of no use to the other commands.
    """
    cells = [["" if cell is None else clean(str(cell)) for cell in row] for row in rows]
    table = Table(box=None, pad_edge=False)
    for i, title in enumerate(columns):
        width = max((cell_len(row[i]) for row in cells), default=0) if title == whole else None
        table.add_column(title, overflow="fold", no_wrap=title == whole, min_width=width)
    for row in cells:
        table.add_row(*map(Text, row))
    _print(table)


def print_fields(fields: Iterable[tuple[str, str]]) -> None:
    """One line for each name and value."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True, overflow="fold")
    table.add_column(overflow="fold")
    for name, value in fields:
        table.add_row(Text(clean(name)), Text(clean(value)))
    _print(table)


def _print(table: Table) -> None:
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, _PIPE)
    console.print(table)


def print_error(command: str, detail: str, exit_code: int, *, as_json: bool) -> None:
    if as_json:
        show({"exit_code": exit_code, "error": detail}, (), as_json=True)
    print(f"tranche {command}: {clean(detail)}", file=sys.stderr)
