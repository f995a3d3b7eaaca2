"""The HTTP server: granian, its processes bound to the life of the one that started them."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import Any, Final

from granian import Granian
from granian.constants import HTTPModes, Interfaces, Loops

from app.settings import Settings

_PR_SET_PDEATHSIG: Final = 1
_KILL_TIMEOUT: Final = 15
_PARENT: Final = "TRANCHE_SERVER_PID"


def application() -> Any:
    """What each serving process loads."""
    from app.main import factory

    if sys.platform == "linux":
        # granian ends its processes when it stops; when it is killed, only the kernel can.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != int(os.environ[_PARENT]):
            raise SystemExit("the server is gone")
    return factory()


def serve_http(settings: Settings, *, host: str, port: int, workers: int) -> None:
    """Serve until SIGTERM or SIGINT; requests under way are answered first."""
    os.environ[_PARENT] = str(os.getpid())
    Granian(
        "app.cli.server:application",
        factory=True,
        address=host,
        port=port,
        interface=Interfaces.ASGI,
        workers=workers,
        loop=Loops.uvloop,
        http=HTTPModes.http1,
        websockets=False,
        backlog=4096,
        # Requests beyond it wait in the kernel; the application refuses what is too much with words.
        backpressure=settings.max_requests * 2,
        respawn_failed_workers=True,
        workers_kill_timeout=_KILL_TIMEOUT,
        log_level="warning",  # type: ignore[arg-type]
    ).serve()
