"""The command `tranche`: one group, its commands loaded only when they are called."""

import importlib
import sys
from typing import Any, Final

import rich_click as click

from app.errors import TrancheError

_COMMANDS: Final = {
    "up": ("app.cli.local.up", "up"),
    "demo": ("app.cli.local.demo.command", "demo"),
    "push": ("app.cli.push", "push_command"),
    "jobs": ("app.cli.jobs", "jobs_group"),
    "dead-letters": ("app.cli.dead_letters", "dead_letters_group"),
    "records": ("app.cli.records", "records_group"),
    "resource-types": ("app.cli.resource_types", "resource_types_group"),
    "tenants": ("app.cli.local.access", "tenants"),
    "keys": ("app.cli.local.access", "keys"),
    "destinations": ("app.cli.destinations", "destinations"),
    "webhooks": ("app.cli.webhooks", "webhooks"),
    "secrets": ("app.cli.local.secrets", "secrets"),
    "serve": ("app.cli.local.operate", "serve"),
    "worker": ("app.cli.local.operate", "worker"),
    "migrate": ("app.cli.local.operate", "migrate"),
    "settings": ("app.cli.local.operate", "settings"),
    "sandbox-crm": ("app.cli.local.operate", "sandbox_crm"),
}
_OLDER: Final = {"contacts": "records"}
"""Names that commands had before."""


class LazyGroup(click.RichGroup):
    """`tranche jobs show` must not import a web server."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> Any:
        place = _COMMANDS.get(_OLDER.get(cmd_name, cmd_name))
        return None if place is None else getattr(importlib.import_module(place[0]), place[1])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tranche", prog_name="tranche")
def tranche() -> None:
    """A bulk import API with one result per item."""


def main() -> None:
    """Run the command line; an error of ours is one line and exit code 2."""
    try:
        tranche(prog_name="tranche")
    except TrancheError as error:
        print(f"tranche: {error.detail}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
