"""`/metrics` in Prometheus' text format: what is open in PostgreSQL, and what the serving processes have answered.

An API key sees the figures of its own tenant. The operator's token (`TRANCHE_METRICS_TOKEN`) sees those of all tenants
together, no tenant by name, and the requests of this service.
"""

from collections.abc import Iterable
from typing import Final

import msgspec
from cachetools import TTLCache
from litestar.response.base import ASGIResponse
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from app.auth.authorization import READING, is_operator
from app.destinations.kinds import KINDS
from app.errors import TrancheError
from app.http.operation import Access, Answer, Call, operation, respond
from app.http.principal import Principal
from app.http.singleflight import SingleFlight
from app.kit.postgres.database import Connection, Database
from app.kit.worker_registry import WorkerWatch
from app.monitoring import counters, queries
from app.monitoring.queries import Stat
from app.settings import Settings

RECENT: Final = 2.0
"""Seconds for which figures are shown again: scrapes cost PostgreSQL little, however many come."""
_MOST: Final = 100

_STATS: Final = {
    "jobs": ("tranche_jobs_unfinished", "Jobs that are not finished, by state.", "state"),
    "deliveries": ("tranche_deliveries_open", "Deliveries that are not done, by state.", "state"),
    "deliveries_due": ("tranche_deliveries_due", "Deliveries that could be sent now.", ""),
    "delivery_oldest_seconds": ("tranche_delivery_oldest_seconds", "Age of the oldest delivery that is not done.", ""),
    "effects": ("tranche_effects_open", "Items that are not settled at a destination, by state.", "state"),
    "unknown_oldest_seconds": ("tranche_effects_unknown_oldest_seconds", "Age of the oldest delivery in doubt.", ""),
    "dead_letters": ("tranche_dead_letters_open", "Dead letters that wait for an operator, by code.", "code"),
    "dead_letter_oldest_seconds": (
        "tranche_dead_letter_oldest_seconds",
        "Age of the oldest dead letter that waits for an operator, by code.",
        "code",
    ),
    "staged_bytes": ("tranche_staged_bytes", "Size of files that wait to be processed, inflated.", ""),
    "circuits_open": ("tranche_circuits_open", "Destinations that an open circuit blocks, by kind.", "kind"),
    "sagas": ("tranche_sagas_unfinished", "Sagas in progress.", "state"),
    "sagas_failed": ("tranche_sagas_failed", "Sagas that failed for good and wait for an operator.", "workflow"),
    "destinations": ("tranche_destinations", "Destinations: active, paused, or blocked for a while.", "state"),
    "webhook_endpoints": ("tranche_webhook_endpoints", "Webhook endpoints by state.", "state"),
    "webhook_messages": ("tranche_webhook_messages", "Webhook messages that are not ok, by state.", "state"),
}

_SERVICE_STATS: Final = {
    "up": ("tranche_db_up", "Whether PostgreSQL answers; while it does not, no other gauge is read from it.", ""),
    "storage_full": (
        "tranche_db_storage_full",
        "Whether PostgreSQL had no disk space left when this process last wrote something.",
        "",
    ),
    "workers_alive": ("tranche_workers_alive", "Workers seen within the last 20 seconds.", ""),
    "blocked": (
        "tranche_destination_blocked",
        "Whether nothing is sent to a destination for a while; only with TRANCHE_METRICS_DESTINATIONS.",
        "destination",
    ),
    "longest_transaction_seconds": (
        "tranche_db_longest_transaction_seconds",
        "Age of the oldest open transaction in the database.",
        "",
    ),
    "oldest_xmin_age": (
        "tranche_db_oldest_xmin_age",
        "Transactions since the oldest snapshot, slot or prepared transaction that keeps VACUUM from removing rows.",
        "",
    ),
}
"""For the operator alone."""

_AWAY: Final = Stat("up", "", 0.0)

_MEDIA_TYPE: Final = counters.MEDIA_TYPE.removesuffix("; charset=utf-8")  # Litestar adds it to any text
_LABELS: Final[dict[str, tuple[str, ...]]] = {
    "jobs": ("receiving", "queued", "running", "syncing"),
    "deliveries": ("pending", "sending"),
    "sagas": ("unfinished",),
    "sagas_failed": ("undo", "consistency"),
    "circuits_open": tuple(KINDS),
    "dead_letters": ("DESTINATION_REJECTED", "OUTCOME_UNKNOWN", "RETRIES_EXHAUSTED", "VERSION_CONFLICT"),
    "destinations": ("active", "paused", "blocked"),
    "webhook_endpoints": ("active", "disabled"),
    "webhook_messages": ("pending", "failed", "dead"),
}
"""Exported even if there is none: a series that is missing is neither 0 nor a growth to Prometheus."""


class StatsCache:
    """What was read of PostgreSQL and Redis a moment ago, once for all who ask."""

    def __init__(self, database: Database, workers: WorkerWatch, settings: Settings) -> None:
        self._database = database
        self._workers = workers
        self._named = settings.metrics_destinations
        self._known: TTLCache[int | None, list[Stat]] = TTLCache(_MOST, RECENT)
        self._readings: SingleFlight[int | None, list[Stat]] = SingleFlight()

    async def read(self, tenant_id: int | None) -> list[Stat]:
        """Of one tenant, or of all together."""
        known = self._known.get(tenant_id)
        if known is not None:
            return known
        return await self._readings.share(tenant_id, lambda: self._read(tenant_id))

    async def close(self) -> None:
        await self._readings.close()

    async def _read(self, tenant_id: int | None) -> list[Stat]:
        try:
            async with self._database.connection() as connection:
                found = await queries.read_stats(connection, tenant_id)
                if tenant_id is None:
                    found += await self._read_service(connection)
        except TrancheError:
            if tenant_id is not None:
                raise
            return [_AWAY]  # what this service counts is needed most just then
        alive = await self._workers.look() if tenant_id is None else None
        if alive is not None:  # else Redis is away, and nobody knows
            found.append(Stat("workers_alive", "", len(alive.alive)))
        self._known[tenant_id] = found
        return found

    async def _read_service(self, connection: Connection) -> list[Stat]:
        server = await queries.read_server_stats(connection)
        found = [Stat(figure, "", value) for figure, value in msgspec.structs.asdict(server).items()]
        found += [Stat("up", "", 1.0), Stat("storage_full", "", float(self._database.storage.is_full))]
        destinations = await queries.read_health(connection, None) if self._named else []
        for row in destinations[: self._named]:
            is_blocked = row.state == "active" and bool(row.blocked_for)
            found.append(Stat("blocked", f"{row.tenant}/{row.name}", float(is_blocked)))
        return found


class _Gauges(Collector):
    def __init__(self, stats: list[Stat], *, operator: bool) -> None:
        self._stats = stats
        self._gauges = _STATS | (_SERVICE_STATS if operator else {})
        if _AWAY in stats:
            self._gauges = {_AWAY.figure: _SERVICE_STATS[_AWAY.figure]}

    def collect(self) -> Iterable[Metric]:
        for figure, (name, meaning, label) in self._gauges.items():
            gauge = GaugeMetricFamily(name, meaning, labels=[label] if label else [])
            values = {found.label: found.value for found in self._stats if found.figure == figure}
            for word, value in (dict.fromkeys(_LABELS.get(figure, ()), 0.0) | values).items():
                gauge.add_metric([word] if label else [], value)
            yield gauge


class _KeyOrOperator(Access):
    """The holder of an API key, or the operator."""

    async def admit(self, call: Call) -> Principal | None:
        if is_operator(call.fields, call.resources[Settings].metrics_token):
            return None
        return await READING.admit(call)


@operation(
    "GET",
    "/metrics",
    tag="health",
    access=_KeyOrOperator(),
    offers=(),
    answers=Answer("The metrics.", headers=("CacheControl",), content={"text/plain": {"type": "string"}}),
)
async def read_metrics(principal: Principal | None, stats: StatsCache) -> ASGIResponse:
    """Metrics for Prometheus.

    An API key with the scope `read` or `admin` sees the metrics of its own tenant. The operator's token
    (`TRANCHE_METRICS_TOKEN`, as a bearer token) sees the sums over all tenants, without names, and the requests of
    this service.
    """
    found = await stats.read(None if principal is None else principal.tenant_id)
    gauges = CollectorRegistry()
    gauges.register(_Gauges(found, operator=principal is None))
    body = generate_latest(gauges)
    if principal is None:
        body += generate_latest(counters.collect())
    return respond(body, headers={"Cache-Control": "no-store"}, media_type=_MEDIA_TYPE)
