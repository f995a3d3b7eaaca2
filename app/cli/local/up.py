"""`tranche up`: everything in the foreground."""

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

import msgspec
import rich_click as click

from app import settings as settings_module
from app.cli.local.stack import TENANT, Stack
from app.telemetry import configure


@click.command()
@click.option("--port", default=8000, show_default=True, help="Port of the API.")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Where data is kept.  [default: .tranche]")
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1), help="API processes.")
@click.option("--sandbox", is_flag=True, help="Also run a sandbox CRM, and sync contacts to it.")
@click.option("--sandbox-port", default=8001, show_default=True, help="Port of the sandbox CRM.")
def up(port: int, data_dir: Path | None, workers: int, sandbox: bool, sandbox_port: int) -> None:
    """Run everything: PostgreSQL and Valkey from wheels, API and worker. Ctrl-C stops everything; the data remains.

    With TRANCHE_DATABASE_URL and TRANCHE_REDIS_URL set, those servers are used instead.
    """
    settings_module.check_names()
    settings = settings_module.load()
    if data_dir is not None:
        settings = msgspec.structs.replace(settings, data_dir=str(data_dir))
    if sys.stderr.isatty() and "TRANCHE_LOG_FORMAT" not in os.environ:
        os.environ["TRANCHE_LOG_FORMAT"] = "console"  # for its parts as well
        settings = msgspec.structs.replace(settings, log_format="console")
    configure(settings)
    stack = Stack(settings, port=port, sandbox_port=sandbox_port if sandbox else None, workers=workers)
    asyncio.run(_up(stack))


async def _up(stack: Stack) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, stopped.set)
    starting = asyncio.ensure_future(stack.__aenter__())
    stopping = asyncio.ensure_future(stopped.wait())
    await asyncio.wait([starting, stopping], return_when="FIRST_COMPLETED")
    if not starting.done():
        starting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await starting
        return
    starting.result()
    try:
        _announce(stack)
        supervising = asyncio.ensure_future(stack.supervise())
        await asyncio.wait([supervising, stopping], return_when="FIRST_COMPLETED")
        if supervising.done():
            supervising.result()
        supervising.cancel()
    finally:
        click.echo("stopping …")
        await stack.stop()


def _announce(stack: Stack) -> None:
    click.echo(f"Tranche is up at {stack.url}  (API reference: {stack.url}/docs)")
    if stack.console_url:
        click.echo(f"The console, signed in (once, within ten minutes): {stack.console_url}")
    if stack.sandbox_url:
        click.echo(
            f"A sandbox CRM is at {stack.sandbox_url}; switch its faults at {stack.sandbox_url}/__sandbox__/faults"
        )
    if stack.first_key:
        click.echo(f"API key (shown this once): {stack.first_key}")
        click.echo(f"  export TRANCHE_URL={stack.url} TRANCHE_API_KEY={stack.first_key}")
    else:
        default = settings_module.Settings().data_dir
        where = "" if stack.folder == Path(default).absolute() else f" --data-dir {stack.folder}"
        click.echo(f"API keys were made before; for another one: tranche keys create --tenant {TENANT}{where}")
    click.echo("Ctrl-C stops everything; the data stays.")
