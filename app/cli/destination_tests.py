"""`tranche destinations test`: have a worker look whether a destination works, and print what it saw."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, Final, Protocol

import rich_click as click

from app.destinations.testing.service import DestinationTestRequest

_MARKS: Final = {True: "ok", False: "FAILED", None: "--"}


class Tests(Protocol):
    """Where tests are asked for; they are as the API shows them."""

    async def test(self, name: str, asked: DestinationTestRequest) -> dict[str, Any]: ...


def make_command(
    tests: Callable[[str | None, str | None, str | None], Tests], where: Callable[[Any], Any]
) -> click.Command:
    """`where` adds the options that `tests` is called with: tenant, URL and key."""

    @click.command()
    @click.argument("name")
    @click.option("--canary", is_flag=True, help="Also write one record, read it back and remove it.")
    @click.option("--json", "as_json", is_flag=True, help="Print JSON.")
    @where
    def test(
        name: str, canary: bool, as_json: bool, tenant: str | None, url: str | None, key: str | None
    ) -> None:
        """Make harmless calls and report the result; exit code 1 unless it works.

        A worker checks that the CRM answers, accepts the token, and is set up correctly. Circuits do not delay it.
        """
        asked = DestinationTestRequest(canary=canary)
        found = asyncio.run(tests(tenant, url, key).test(name, asked))
        click.echo(json.dumps(found) if as_json else _describe(found))
        if found["verdict"] != "works":
            raise SystemExit(1)

    return test


def _describe(found: dict[str, Any]) -> str:
    lines = []
    for step in found["steps"]:
        took = f" ({step['milliseconds']} ms)" if step["milliseconds"] else ""
        lines.append(f"{_MARKS[step['ok']]:6}  {step['name']:11}  {step['detail']}{took}")
    words = {
        "works": f"{found['destination']} works",
        "fails": f"{found['destination']} does not work",
        "unclear": f"it is not clear whether {found['destination']} works",
        None: f"the test of {found['destination']} is not done yet",
    }
    return "\n".join([*lines, words[found["verdict"]]])
