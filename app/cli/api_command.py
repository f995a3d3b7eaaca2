"""Commands that ask the API: a decorator that opens the client and turns every ending into an exit code."""

from __future__ import annotations

import asyncio
import functools
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeVar

import rich_click as click

from app.cli.client.connection import REQUEST_TIMEOUT, open_api
from app.cli.client.errors import ClientError
from app.cli.output import json_option, lines_option, print_error

Work = Callable[..., Awaitable[int | None]]
"""Gets the client, then the options by name; returns the exit code, None for 0."""
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


connection_options = options(
    click.option("--url", help="Where the API is.  [default: TRANCHE_URL]"),
    click.option("--key", help="API key; better in TRANCHE_API_KEY, where `ps` cannot see it."),
)
"""They outrank the environment."""


def api_command(
    words: str, group: click.Group | None = None, *, repeatable: bool = True, rows: bool = False
) -> Callable[[Work], click.Command]:
    """The command `tranche WORDS`, added to `group`.

    It has `--url`, `--key` and `--json` (where `rows`, one object a line) beside the options of the decorators below
    this one. A single question takes `REQUEST_TIMEOUT` seconds at most, or the command's `--timeout` where that is
    more; a command that is not `repeatable` makes something new, see `open_api`.
    """

    def decorate(work: Work) -> click.Command:
        @click.command(words.split()[-1])
        @connection_options
        @(lines_option if rows else json_option)
        @functools.wraps(work)
        def command(url: str | None, key: str | None, as_json: bool, **given: Any) -> None:
            async def connected() -> int:
                seconds = max(given.get("seconds", 0.0), REQUEST_TIMEOUT) if repeatable else 0.0
                async with open_api(url, key, seconds) as api:
                    return await work(api, as_json=as_json, **given) or 0

            sys.exit(run_command(words, connected, as_json=as_json))

        if group is not None:
            group.add_command(command)
        return command

    return decorate


def run_command(
    words: str, work: Callable[[], Coroutine[Any, Any, int]], *, as_json: bool, interrupted: str = ""
) -> int:
    """Run the coroutine and turn every way it may end into an exit code, with one line that says why."""
    try:
        return asyncio.run(work())
    except ClientError as error:
        print_error(words, error.detail, error.exit_code, as_json=as_json)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"\ntranche {words}: interrupted. {interrupted}".rstrip(), file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has seen enough (`| head`); closing stdout later must not complain again.
        sys.stdout = open("/dev/null", "w")  # noqa: SIM115
        return 0
