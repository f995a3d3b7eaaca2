"""The sandbox as an application, as a context in a test, and as a process."""

import asyncio
import contextlib
import importlib
import importlib.util
import signal
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Final

from aiohttp import web

from app.destinations import kinds
from app.sandbox.control import Control, Port
from app.sandbox.front import Front
from app.sandbox.ledger import Ledger
from app.sandbox.vendor import Vendor

KINDS: Final[dict[str, Callable[[], Vendor]]] = {
    kind: importlib.import_module(f"app.sandbox.{kind}").Sandbox
    for kind in kinds.KINDS
    if importlib.util.find_spec(f"app.sandbox.{kind}") is not None
}
"""The kinds that there are sandboxes for: each is the file of its name in this folder."""
MAX_REQUEST_BYTES: Final = 32_000_000
SHUTDOWN_SECONDS: Final = 0.5


@contextlib.asynccontextmanager
async def open_sandbox(
    kind: str = "hubspot",
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    ledger_path: Path | None = None,
    fields: Iterable[str] = (),
) -> AsyncIterator[str]:
    """A running sandbox; yields its base URL, e.g. `http://127.0.0.1:40123`. Port 0 takes any free one.

    The vendor's routes are at the root, and under `/portal/{name}` for another account. `fields` are declared beside
    the vendor's own, in every account; `app.sandbox.ANY` declares every name.

    Raises:
        ValueError: an unknown kind.
    """
    if kind not in KINDS:
        raise ValueError(f"no sandbox for {kind!r}; there are: {', '.join(KINDS)}")
    ledger = Ledger(ledger_path)
    front = Front(KINDS[kind](), ledger, fields)
    control = Control(front, kind)
    app = web.Application(client_max_size=MAX_REQUEST_BYTES)
    app.add_routes(control.routes())
    for route in front.vendor.routes:
        for base in ("", "/portal/{portal}"):
            app.router.add_route(route.method, base + route.path, front.handler(route))
    app.router.add_post(front.vendor.token_path, front.issuer.token)
    app.router.add_get(front.vendor.authorize_path, front.issuer.authorize)
    app.router.add_route("*", "/{anything:.*}", front.handler(None))
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_SECONDS)
    await runner.setup()
    listener = control.port = Port(runner, host, port)
    try:
        await listener.open()
        yield f"http://{f'[{host}]' if ':' in host else host}:{listener.number}"
    finally:
        await listener.close()
        await runner.cleanup()
        ledger.close()


def run(
    kind: str = "hubspot",
    host: str = "127.0.0.1",
    port: int = 0,
    ledger_path: Path | None = None,
    *,
    fields: Iterable[str] = (),
    announce: Callable[[str], None] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT. `announce` receives the base URL once the port is open.

    Raises:
        ValueError: an unknown kind.
        OSError: the port is taken.
    """

    async def main() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        async with open_sandbox(kind, host=host, port=port, ledger_path=ledger_path, fields=fields) as base_url:
            if announce is not None:
                announce(base_url)
            await stop.wait()

    asyncio.run(main())
