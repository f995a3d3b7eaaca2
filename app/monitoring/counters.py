"""What the processes of a service count, by hooks of `app.telemetry`: an event happens, a counter here grows."""

from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram
from prometheus_client.multiprocess import MultiProcessCollector

from app.telemetry import Event, RequestServed, RowsPruned

MEDIA_TYPE: Final = CONTENT_TYPE_LATEST
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

_OWN: Final = CollectorRegistry()
_REQUESTS: Final = Counter("tranche_http_requests", "Requests answered.", ["method", "route", "status"], registry=_OWN)
_SECONDS: Final = Histogram(
    "tranche_http_request_seconds",
    "Time from the first byte of a request to the last of its answer.",
    ["route"],
    registry=_OWN,
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
_ITEMS: Final = Counter("tranche_imported_items", "Items of imports that were answered.", registry=_OWN)
_PRUNED: Final = Counter("tranche_pruned", "Rows removed past their time; jobs for outcomes.", ["kind"], registry=_OWN)


def observe(event: Event) -> None:
    """The hook of `app.telemetry` that counts. Words of a client's own making are no labels: they have no end."""
    if isinstance(event, RequestServed):
        method = event.method if event.method in _METHODS else "other"
        _REQUESTS.labels(method, event.route, str(event.status)).inc()
        _SECONDS.labels(event.route).observe(event.milliseconds / 1000)
        if event.items:
            _ITEMS.inc(event.items)
    elif isinstance(event, RowsPruned):
        _PRUNED.labels(event.kind).inc(event.rows)


def collect() -> CollectorRegistry:
    """Those of all processes that serve this port, where `tranche serve` has given them a folder to share."""
    registry = CollectorRegistry()
    try:
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    except ValueError:  # there is no such folder: this process stands alone
        return _OWN
    return registry
