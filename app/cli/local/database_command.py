"""Commands that ask the database and print the answer."""

from __future__ import annotations

import asyncio
import functools
import sys
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

import rich_click as click

from app.cli.local import place
from app.cli.output import json_option


def database_command(group: click.Group, name: str) -> Callable[[Callable[..., Awaitable[int | None]]], click.Command]:
    """A command of `group`; its work gets a connection to the service's database, then the options by name.

    What it returns is the exit code, None for 0.
    """

    def decorate(work: Callable[..., Awaitable[int | None]]) -> click.Command:
        @group.command(name)
        @place.data_dir_option
        @json_option
        @functools.wraps(work)
        def command(**given: Any) -> None:
            async def connected() -> int | None:
                async with place.connection(place.find(redis=False)) as connection:
                    return await work(connection, **given)

            sys.exit(asyncio.run(connected()))

        return command

    return decorate


def show_time(at: datetime | None, absent: str = "") -> str:
    return f"{at:%Y-%m-%d %H:%M}" if at else absent
