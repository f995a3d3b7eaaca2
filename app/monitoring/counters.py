"""What the processes of a service count, by hooks of `app.telemetry`: an event happens, a counter here grows.

Labels are words of closed sets. Words of a client's own making are none: they have no end.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Final

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    multiprocess,
)

from app import telemetry
from app.telemetry import Event

disable_created_metrics()  # type: ignore[no-untyped-call]  # a series more for each that nobody reads

MEDIA_TYPE: Final = CONTENT_TYPE_LATEST
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_FOLDER: Final = "PROMETHEUS_MULTIPROC_DIR"
_OWN: Final = CollectorRegistry()


def _count(name: str, meaning: str, *labels: str) -> Counter:
    return Counter(name, meaning, labels, registry=_OWN)


def _time(name: str, meaning: str, *labels: str, buckets: tuple[float, ...]) -> Histogram:
    return Histogram(name, meaning, labels, registry=_OWN, buckets=buckets)


_QUICK: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_CALLS: Final = (0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 7.5, 10, 20, 60)
_LONG: Final = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3_600, 14_400, 43_200, 86_400)
_LATE: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
_TARGET: Final = ("kind", "destination")

_REQUESTS: Final = _count("tranche_http_requests", "Requests answered.", "method", "route", "status")
_SECONDS: Final = _time(
    "tranche_http_request_seconds",
    "Time from the first byte of a request to the last of its answer.",
    "route",
    buckets=_QUICK,
)
_KEYS: Final = _count("tranche_idempotency", "Requests with an Idempotency-Key, by what it did.", "outcome")
_READS: Final = _count(
    "tranche_reads",
    "Reads answered: by the primary, by a replica as current as it (offload), or by a fallback.",
    "kind",
    "source",
)
_ITEMS: Final = _count("tranche_items", "Items of imports that were decided.", "status", "code")
_REFUSED: Final = _count("tranche_rate_limit_refused", "What rate limits refused, by policy.", "scope", "policy")
_ACQUIRED: Final = _count("tranche_db_connections_acquired", "Connections to PostgreSQL that somebody asked for.")
_WAITED: Final = _count("tranche_db_wait_seconds", "Seconds waited for connections to PostgreSQL.")
_IN_USE: Final = Gauge(
    "tranche_db_connections_in_use",
    "Connections to PostgreSQL in use, sampled.",
    registry=_OWN,
    multiprocess_mode="livesum",
)
_SHED: Final = _count("tranche_requests_shed", "Imports not served because the service is overloaded.", "reason")
_LIMIT: Final = Gauge("tranche_accept_limit", "Imports accepted at a time.", registry=_OWN, multiprocess_mode="liveall")
_WAITING: Final = Gauge(
    "tranche_accept_waiting", "Imports that wait to be accepted.", registry=_OWN, multiprocess_mode="liveall"
)
_LAG: Final = _time("tranche_event_loop_lag_seconds", "By how much the event loop was late, sampled.", buckets=_LATE)
_AWAY: Final = _count("tranche_redis_away_seconds", "Seconds for which a worker could not reach Redis.")
_MISSED: Final = _count("tranche_redis_fallbacks", "Decisions of one process alone while Redis was away.", "part")
_CRM_CALLS: Final = _time(
    "tranche_crm_call_seconds", "Calls to destinations.", *_TARGET, "operation", "outcome", buckets=_CALLS
)
_TOKENS: Final = _time("tranche_access_token_seconds", "Calls to token endpoints.", "kind", "outcome", buckets=_CALLS)
_ATTEMPTS: Final = _count("tranche_delivery_attempts", "Attempts at deliveries.", *_TARGET, "outcome")
_DELIVERED: Final = _count("tranche_delivery_items", "Items of attempts, by their state after it.", *_TARGET, "state")
_DRIFT: Final = _count(
    "tranche_drift", "Records in which verifications found a destination to differ.", *_TARGET, "drift"
)
_COMPLETED: Final = _count("tranche_deliveries_completed", "Deliveries of which nothing is open any more.", *_TARGET)
_ARRIVED: Final = _time(
    "tranche_commit_to_crm_seconds",
    "Time from the commit of an import to the CRM's answer that it has records of it, by delivery.",
    *_TARGET,
    buckets=_LONG,
)
_CIRCUIT: Final = (*_TARGET, "circuit")
_VERDICTS: Final = _count("tranche_circuit_calls", "Calls as a circuit judged them.", *_CIRCUIT, "verdict")
_CHANGES: Final = _count("tranche_circuit_transitions", "Changes of a circuit's state.", *_CIRCUIT, "state")
_OPEN: Final = _count("tranche_circuit_open_seconds", "Seconds for which circuits were opened.", *_CIRCUIT)
_WEBHOOKS: Final = _count("tranche_webhook_attempts", "Calls of webhooks, by the message's state then.", "state")
_WEBHOOK_CALLS: Final = _time("tranche_webhook_call_seconds", "Calls of webhooks.", "status", buckets=_CALLS)
_PRUNED: Final = _count("tranche_pruned", "Rows removed past their time; jobs for outcomes.", "kind")
_SAGAS: Final = _count("tranche_sagas", "Sagas that began and ended.", "workflow", "state")

for _word in ("new", "replayed", "conflict", "mismatch", "expired"):
    _KEYS.labels(_word)  # a series that is missing is neither 0 nor a growth to Prometheus
_ITEMS.labels("ok", "")


@cache
def _child(metric: Any, *labels: str) -> Any:
    """That of these labels, which the metric itself looks up under a lock. There are as many as it has."""
    return metric.labels(*labels)


def _on_request(event: telemetry.RequestServed) -> None:
    method = event.method if event.method in _METHODS else "other"
    _child(_REQUESTS, method, event.route, str(event.status)).inc()
    _child(_SECONDS, event.route).observe(event.milliseconds / 1000)
    if event.key is not None:
        _child(_KEYS, event.key).inc()
    if event.read is not None and event.source is not None:
        _child(_READS, event.read, event.source).inc()


def _on_shed(event: telemetry.RequestShed) -> None:
    _child(_SHED, event.reason).inc(event.count)
    if event.reason == "arrival":
        _child(_REQUESTS, "POST", telemetry.UNROUTED, "503").inc(event.count)


def _on_items(event: telemetry.ItemsDecided) -> None:
    for (status, code), count in event.counts.items():
        _child(_ITEMS, status, code).inc(count)


def _on_sample(event: telemetry.ProcessSampled) -> None:
    _LAG.observe(event.lag)
    _IN_USE.set(event.connections)
    _ACQUIRED.inc(event.acquired)
    _WAITED.inc(event.waited)


def _on_queue(event: telemetry.QueueSampled) -> None:
    _LIMIT.set(event.limit)
    _WAITING.set(event.waiting)


def _on_call(event: telemetry.CallMade) -> None:
    target = (event.kind, event.destination or "")
    _child(_CRM_CALLS, *target, event.operation, event.outcome).observe(event.seconds)
    for circuit, verdict in event.verdicts:
        _child(_VERDICTS, *target, circuit, verdict).inc()


def _on_drift(event: telemetry.DriftFound) -> None:
    for drift, count in event.counts.items():
        _child(_DRIFT, event.kind, event.destination or "", drift).inc(count)


def _on_change(event: telemetry.CircuitChanged) -> None:
    circuit = (event.kind, event.destination or "", event.scope)
    _child(_CHANGES, *circuit, event.after).inc()
    if event.after == "open":
        _child(_OPEN, *circuit).inc(event.retry_after)


def _on_attempt(event: telemetry.DeliveryAttempted) -> None:
    target = (event.kind, event.destination or "")
    _child(_ATTEMPTS, *target, event.outcome).inc()
    for state, count in event.items.items():
        _child(_DELIVERED, *target, state).inc(count)
    if event.items.get("ok"):
        _child(_ARRIVED, *target).observe(event.age)
    if event.wait is None:
        _child(_COMPLETED, *target).inc()


def _on_webhook(event: telemetry.WebhookAttempted) -> None:
    _child(_WEBHOOKS, event.state).inc()
    _child(_WEBHOOK_CALLS, "none" if event.status is None else f"{event.status // 100}xx").observe(event.seconds)


def _on_saga(event: telemetry.SagaMoved) -> None:
    if event.began:
        _child(_SAGAS, event.workflow, "began").inc()
    elif event.state in ("done", "compensated", "failed"):
        _child(_SAGAS, event.workflow, event.state).inc()


_COUNTED: Final[dict[type[Event], Callable[[Any], None]]] = {
    telemetry.RequestServed: _on_request,
    telemetry.ItemsDecided: _on_items,
    telemetry.ProcessSampled: _on_sample,
    telemetry.QueueSampled: _on_queue,
    telemetry.RequestShed: _on_shed,
    telemetry.RowsPruned: lambda event: _child(_PRUNED, event.kind).inc(event.rows),
    telemetry.LimitExceeded: lambda event: _child(_REFUSED, event.scope, event.policy).inc(event.refused),
    telemetry.RedisMissed: lambda event: _child(_MISSED, event.part).inc(),
    telemetry.RedisAway: lambda event: _AWAY.inc(event.seconds),
    telemetry.CallMade: _on_call,
    telemetry.CircuitChanged: _on_change,
    telemetry.DriftFound: _on_drift,
    telemetry.AccessTokenAsked: lambda event: _child(_TOKENS, event.kind, event.outcome).observe(event.seconds),
    telemetry.DeliveryAttempted: _on_attempt,
    telemetry.WebhookAttempted: _on_webhook,
    telemetry.SagaMoved: _on_saga,
}


def observe(event: Event) -> None:
    """The hook of `app.telemetry` that counts."""
    count = _COUNTED.get(type(event))
    if count is not None:
        count(event)


def start() -> None:
    """Count what happens in this process from now on."""
    if observe not in telemetry.HOOKS:
        telemetry.HOOKS.append(observe)
    folder = os.environ.get(_FOLDER)
    for file in Path(folder).glob("gauge_live*.db") if folder else ():
        pid = int(file.stem.rpartition("_")[2])
        try:
            os.kill(pid, 0)
        except ProcessLookupError:  # a process that this one follows: what it had in use is free
            multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]
        except OSError:
            continue


def collect() -> CollectorRegistry:
    """Those of all processes that serve this port, where `tranche serve` has given them a folder to share."""
    registry = CollectorRegistry()
    with suppress(ValueError):  # there is no such folder: this process is alone
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return registry
    return _OWN
