"""What commands print: tables and lines for a reader, JSON for a program."""

import sys
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from datetime import datetime
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
_JSON: Final = "tranche.json"


def _remember(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    context.meta[_JSON] = wanted


def _json_option(text: str) -> Callable[[Any], Any]:
    return click.option("--json", is_flag=True, expose_value=False, callback=_remember, help=text)


json_option: Final = _json_option("Print JSON.")
lines_option: Final = _json_option("Print JSON, one object a line.")


def wants_json() -> bool:
    """Whether the command that runs was given `--json`."""
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.meta.get(_JSON))


def show(value: Any, lines: Iterable[str]) -> None:
    """Print `value` where JSON is wanted, encoded bytes as they are; else the lines, which are not read otherwise."""
    if wants_json():
        print((value if isinstance(value, bytes) else msgspec.json.encode(value)).decode())
    else:
        for line in lines:
            print(clean(line))


def show_table(value: Any, columns: Sequence[str], rows: Iterable[Sequence[object]], *, whole: str = "") -> None:
    """Print `value` where JSON is wanted, else a table, for which see `_print_table`."""
    if wants_json():
        show(value, ())
    else:
        _print_table(columns, rows, whole)


async def show_rows(
    rows: AsyncIterator[msgspec.Raw],
    limit: int | None,
    columns: Sequence[str],
    describe: Callable[[dict[str, Any]], Sequence[object]],
    *,
    whole: str = "",
) -> None:
    """The first `limit` of `rows`: as they came, one object a line, where JSON is wanted; else as a table."""
    cells = []
    async for raw in take_some(rows, limit):
        if wants_json():
            print(bytes(raw).decode())
        else:
            cells.append(describe(msgspec.json.decode(raw)))
    if not wants_json():
        _print_table(columns, cells, whole)


async def take_some(items: AsyncIterator[T], limit: int | None) -> AsyncIterator[T]:
    """The first `limit`, or all."""
    count = 0
    async for item in items:
        yield item
        count += 1
        if count == limit:
            return


def show_fields(value: Any, fields: Iterable[tuple[str, str]]) -> None:
    """Print `value` where JSON is wanted, else one line for each name and value."""
    if wants_json():
        show(value, ())
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True, overflow="fold")
    table.add_column(overflow="fold")
    for name, text in fields:
        table.add_row(Text(clean(name)), Text(clean(text)))
    _print(table)


def _print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], whole: str) -> None:
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


def _print(table: Table) -> None:
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, _PIPE)
    console.print(table)


def show_time(at: datetime | None, absent: str = "") -> str:
    return f"{at:%Y-%m-%d %H:%M}" if at else absent


def print_error(command: str, detail: str, exit_code: int) -> None:
    if wants_json():
        show({"exit_code": exit_code, "error": detail}, ())
    print(f"tranche {command}: {clean(detail)}", file=sys.stderr)
