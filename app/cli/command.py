"""How a command is made: a decorator that opens what it works with and turns every ending into an exit code."""

import asyncio
import functools
import sys
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, TypeVar

import rich_click as click

from app.cli.client.api_client import ApiClient
from app.cli.client.connection import REQUEST_TIMEOUT, open_api
from app.cli.client.errors import ClientError
from app.cli.output import json_option, lines_option, print_error

Work = Callable[..., Awaitable[int | None]]
"""Gets what was opened, then the options by name; returns the exit code, None for 0."""
F = TypeVar("F", bound=Callable[..., Any])

INTERRUPTED: Final = 130

wait_option = click.option("--wait", "wait", is_flag=True, help="Wait until it is finished.")
quiet_option = click.option("--quiet", "-q", is_flag=True, help="Show no progress.")


def options(*chosen: Callable[[Any], Any]) -> Callable[[F], F]:
    """Several options or arguments as one decorator, in the order of the help page."""

    def decorate(command: F) -> F:
        for option in reversed(chosen):
            command = option(command)
        return command

    return decorate


def limit_option(most: int) -> Callable[[F], F]:
    return click.option("--limit", type=click.IntRange(min=1), default=most, show_default=True, help="Most to show.")


def timeout_option(text: str = "Timeout.") -> Callable[[F], F]:
    return click.option(
        "--timeout",
        "seconds",
        type=click.FloatRange(min=0),
        default=300,
        show_default=True,
        metavar="SECONDS",
        help=text,
    )


def repeated(name: str, values: str, metavar: str, text: str) -> Callable[[F], F]:
    """An option that may be given again and again."""
    return click.option(name, values, multiple=True, metavar=metavar, help=text)


connection_options = options(
    click.option("--url", help="Where the API is.  [default: TRANCHE_URL]"),
    click.option("--key", help="API key; better in TRANCHE_API_KEY, where `ps` cannot see it."),
)
"""They outrank the environment."""


def command(
    group: click.Group,
    verb: str,
    opens: Callable[[dict[str, Any]], AbstractAsyncContextManager[Any]],
    *own: Callable[[Any], Any],
    rows: bool = False,
) -> Callable[[Work], click.Command]:
    """The command `tranche GROUP VERB`, whose work gets what `opens` gives.

    It has `--json` (where `rows`, one object a line) and the options of `opens` beside those of the decorators below
    this one; `opens` takes the values of its `own` out of all.
    """

    def decorate(work: Work) -> click.Command:
        @group.command(verb)
        @options(*own, lines_option if rows else json_option)
        @functools.wraps(work)
        def run(**given: Any) -> None:
            async def opened() -> int:
                async with opens(given) as place:
                    return await work(place, **given) or 0

            sys.exit(run_command(f"{group.name} {verb}", opened))

        return run

    return decorate


def api_command(
    group: click.Group, verb: str, *, repeatable: bool = True, rows: bool = False
) -> Callable[[Work], click.Command]:
    """A command that asks the API.

    A single question takes `REQUEST_TIMEOUT` seconds at most, or the command's `--timeout` where that is more; a
    command that is not `repeatable` makes something new, see `open_api`.
    """

    def opens(given: dict[str, Any]) -> ApiClient:
        seconds = max(given.get("seconds", 0.0), REQUEST_TIMEOUT) if repeatable else 0.0
        return open_api(given.pop("url"), given.pop("key"), seconds)

    return command(group, verb, opens, connection_options, rows=rows)


def run_command(words: str, work: Callable[[], Coroutine[Any, Any, int]], *, interrupted: str = "") -> int:
    """Run the coroutine and turn every way it may end into an exit code, with one line that says why."""
    try:
        return asyncio.run(work())
    except ClientError as error:
        print_error(words, error.detail, error.exit_code)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"\ntranche {words}: interrupted. {interrupted}".rstrip(), file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has seen enough (`| head`); closing stdout later must not complain again.
        sys.stdout = open("/dev/null", "w")  # noqa: SIM115
        return 0
