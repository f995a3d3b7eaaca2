"""What every command of the client shares: where the API is, the key, and how an error is reported."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from typing import Any, Final, TypeVar

import msgspec
import rich_click as click
from rich.console import Console, RenderableType
from rich.table import Table

from app import settings
from app.cli.client.api_client import ApiClient, check_key, check_url
from app.cli.client.clock import Clock, Deadline, SystemClock
from app.cli.client.errors import ClientError, UsageError
from app.cli.client.progress import clean
from app.errors import SettingsError

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

INTERRUPTED: Final = 130


class Connection(msgspec.Struct, frozen=True):
    url: str
    key: str

    def __repr__(self) -> str:
        return f"Connection({self.url!r})"


def connection_options(command: F) -> F:
    """`--url` and `--key`, which outrank the environment."""
    command = click.option(
        "--key", default=None, help="API key; better in TRANCHE_API_KEY, where `ps` cannot see it."
    )(command)
    return click.option("--url", default=None, help="Where the API is.  [default: TRANCHE_URL]")(command)


def find_connection(url: str | None, key: str | None) -> Connection:
    """Options first, then the environment.

    Raises:
        UsageError: an address or key is missing or cannot be used.
    """
    try:
        found = settings.load()
    except SettingsError as error:
        raise UsageError(error.detail) from error
    return Connection(check_url(url or found.url), check_key(key or found.api_key))


def run_command(
    command: str,
    work: Callable[[], Coroutine[Any, Any, int]],
    *,
    as_json: bool = False,
    interrupted: str = "",
) -> int:
    """Run the coroutine and turn every way it may end into an exit code, with one line that says why."""
    try:
        return asyncio.run(work())
    except ClientError as error:
        report_error(command, error.detail, error.exit_code, as_json=as_json)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"\ntranche {command}: interrupted. {interrupted}".rstrip(), file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has seen enough (`| head`); closing stdout later must not complain again.
        sys.stdout = open("/dev/null", "w")  # noqa: SIM115
        return 0


def report_error(command: str, detail: str, exit_code: int, *, as_json: bool) -> None:
    if as_json:
        print(msgspec.json.encode({"exit_code": exit_code, "error": detail}).decode())
    print(f"tranche {command}: {clean(detail)}", file=sys.stderr)


_PIPE: Final = 1_000
"""Columns of a line that is no window's."""
FIRST_CONTACT: Final = 5.0
"""Seconds after which an address is abandoned where nobody has answered at all."""
REQUEST_TIMEOUT: Final = 30.0
"""Seconds that a single question may take, attempts included."""

json_option = click.option("--json", "as_json", is_flag=True, help="Print the API's answer as it came.")
lines_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")


def open_api(
    url: str | None,
    key: str | None,
    clock: Clock | None = None,
    deadline: Deadline | None = None,
    *,
    repeatable: bool = True,
) -> ApiClient:
    """A client for a command; without `deadline`, for single questions.

    What makes something new is not `repeatable` and sent once: nobody could know which of two responses was the first.
    """
    found = find_connection(url, key)
    clock = clock or SystemClock()
    deadline = deadline or Deadline(clock, REQUEST_TIMEOUT if repeatable else 0.0)
    return ApiClient(
        found.url, found.key, clock=clock, deadline=deadline, notify=warn, first_contact=FIRST_CONTACT
    )


def warn(text: str) -> None:
    print(clean(text), file=sys.stderr)


async def take_some(items: AsyncIterator[T], limit: int | None) -> AsyncIterator[T]:
    """The first `limit`, or all."""
    count = 0
    async for item in items:
        yield item
        count += 1
        if count == limit:
            return


async def print_rows(
    rows: AsyncIterator[msgspec.Raw],
    limit: int | None,
    table: Table,
    describe: Callable[[dict[str, Any]], Iterable[RenderableType]],
    *,
    as_json: bool,
) -> None:
    """The first `limit` of `rows` in `table`, or as they came, one object a line."""
    async for raw in take_some(rows, limit):
        if as_json:
            print(bytes(raw).decode())
        else:
            table.add_row(*describe(msgspec.json.decode(raw)))
    if not as_json:
        print_table(table)


def print_table(table: Table) -> None:
    """Nothing of it is cut off: in a narrow window cells go on below, and in a pipe there is no window."""
    for column in table.columns:
        if not column.no_wrap:
            column.overflow = "fold"
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, _PIPE)
    console.print(table)
