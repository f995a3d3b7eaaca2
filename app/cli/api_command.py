"""Commands that ask the API: a decorator that opens the client and turns every ending into an exit code."""

from __future__ import annotations

import functools
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import rich_click as click

from app.cli.client.clock import Deadline, SystemClock
from app.cli.client.connection import REQUEST_TIMEOUT, connection_options, open_api, run_command

Work = Callable[..., Awaitable[int | None]]
"""Gets the client, then the options by name; returns the exit code, None for 0."""

wait_option = click.option("--wait", "wait", is_flag=True, help="Wait until it is finished.")
quiet_option = click.option("--quiet", "-q", is_flag=True, help="Show no progress.")


def api_command(
    words: str, group: click.Group | None = None, *, repeatable: bool = True
) -> Callable[[Work], click.Command]:
    """The command `tranche WORDS`, added to `group`.

    It has `--url` and `--key` beside the options of the decorators below this one. A single question takes
    `REQUEST_TIMEOUT` seconds at most, or the command's `--timeout` where that is more. For `repeatable` see
    `open_api`.
    """

    def decorate(work: Work) -> click.Command:
        @click.command(words.split()[-1])
        @connection_options
        @functools.wraps(work)
        def command(url: str | None, key: str | None, **options: Any) -> None:
            async def connected() -> int:
                clock = SystemClock()
                seconds = max(options.get("seconds", 0.0), REQUEST_TIMEOUT) if repeatable else 0.0
                async with open_api(url, key, clock, Deadline(clock, seconds)) as api:
                    return await work(api, **options) or 0

            code = run_command(words, connected, as_json=bool(options.get("as_json")))
            sys.exit(code)

        if group is not None:
            group.add_command(command)
        return command

    return decorate
