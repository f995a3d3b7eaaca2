"""The HTTP server: granian, its processes bound to the life of the one that started them."""

import os
import resource
import signal
import socket
import ssl
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import structlog
from granian import Granian
from granian.constants import HTTPModes, Interfaces, Loops, SSLProtocols

from app.embedded.launch import PR_SET_PDEATHSIG, prctl
from app.errors import Conflict, SettingsError
from app.settings import PROCESSES, Settings

log = structlog.get_logger()

_START_SECONDS: Final = 60.0
_START_PAUSE: Final = 0.1
_NEAR: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # what any address is called from here
_KILL_TIMEOUT: Final = 15
_LOOK: Final = 2.0
"""Seconds between two looks whether the process that started this one is there."""
_CONNECTIONS: Final = 8_192
_PARENT: Final = "TRANCHE_SERVER_PID"


def application() -> Any:
    """What each serving process loads."""
    # granian forks: until it sets its own, its master's handlers would swallow here every call to stop.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    from app.main import factory

    parent = int(os.environ[_PARENT])
    if sys.platform == "linux":
        # granian ends its processes when it stops; when it is killed, only the kernel can.
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        raise SystemExit("the server is gone")
    threading.Thread(target=follow, args=(parent,), daemon=True).start()
    return factory()


def follow(parent: int) -> None:
    """End this process after its parent, whatever became of the kernel's signal: granian takes it over at some moment,
    and one that comes in between is lost."""
    while os.getppid() == parent:
        time.sleep(_LOOK)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_KILL_TIMEOUT)
    os._exit(1)


def claim_port(host: str, port: int, option: str, *, timeout: float = 0.0) -> None:
    """See that a port can be listened on, waiting `timeout` seconds for who may be leaving it.

    Raises:
        Conflict: it is taken, or the address is not one of this machine.
    """
    limit = time.monotonic() + timeout
    while True:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
                return
            except OSError as error:
                if time.monotonic() >= limit:
                    raise Conflict(
                        f"cannot listen on {host}:{port}: {error.strerror}; choose another port ({option})"
                    ) from error
        time.sleep(0.05)


class Tls(NamedTuple):
    """PEM files: the certificate with its chain, and its key without a passphrase."""

    certificate: Path
    key: Path


def check_tls(tls: Tls) -> None:
    """
    Raises:
        SettingsError: a file cannot be read, or the two do not belong together. (granian itself would only panic.)
    """

    def no_passphrase() -> str:
        raise SettingsError(f"{tls.key} (--tls-key) is encrypted; give a key without a passphrase, mode 0600.")

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for path, option in ((tls.certificate, "--tls-cert"), (tls.key, "--tls-key")):
        try:
            path.read_bytes()
        except OSError as error:
            raise SettingsError(f"{path} ({option}) cannot be read: {error.strerror}.") from error
    try:
        context.load_cert_chain(tls.certificate, tls.key, no_passphrase)
    except (ssl.SSLError, ValueError) as error:
        raise SettingsError(
            f"{tls.certificate} (--tls-cert) and {tls.key} (--tls-key) are no certificate and its key in PEM: {error}."
        ) from error


def serve_http(
    settings: Settings, *, host: str, port: int, workers: int, tls: Tls | None = None, quiet: bool = False
) -> None:
    """Serve until SIGTERM or SIGINT; requests under way are answered first.

    Raises:
        Conflict: somebody else listens there. (granian itself would only panic.)
        SettingsError: certificate or key cannot be used.
    """
    if tls is not None:
        check_tls(tls)
    claim_port(host, port, "--port")
    os.environ |= {_PARENT: str(os.getpid()), PROCESSES: str(workers)}
    _allow_connections()
    server = Granian(
        "app.cli.local.server:application",
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
        # It counts connections, idle ones too, so a small limit of requests must not keep people out.
        backpressure=max(settings.max_requests * 2, _CONNECTIONS),
        respawn_failed_workers=True,
        workers_kill_timeout=_KILL_TIMEOUT,
        log_level="warning",  # type: ignore[arg-type]
        ssl_cert=None if tls is None else tls.certificate,
        ssl_key=None if tls is None else tls.key,
        ssl_protocol_min=SSLProtocols.tls12,
    )
    if not quiet:
        url = f"http{'s' if tls else ''}://{f'[{host}]' if ':' in host else host}:{port}"
        server.on_startup(threading.Thread(target=_say_where, args=(url, host, port, workers), daemon=True).start)
    with tempfile.TemporaryDirectory(prefix="tranche-metrics-", ignore_cleanup_errors=True) as counters:
        # Where the processes that serve keep their counters, so that each can report in /metrics those of all.
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = counters
        server.serve()


def _allow_connections() -> None:
    """As many open files as the system lets this user have: the usual 1,024 are fewer than the connections allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or soft < hard:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65_536) if hard > 0 else 65_536, hard))


def _say_where(url: str, host: str, port: int, workers: int) -> None:
    """As soon as a connection is taken there: the port is bound before anybody listens."""
    until = time.monotonic() + _START_SECONDS
    while True:
        time.sleep(_START_PAUSE)
        try:
            socket.create_connection((_NEAR.get(host, host), port), timeout=1).close()
            break
        except OSError:
            if time.monotonic() > until:
                return
    if sys.stderr.isatty():
        print(f"Tranche listens on {url} (API reference: {url}/docs). Ctrl-C stops it.", file=sys.stderr)
    else:
        log.info("listening", url=url, workers=workers)
