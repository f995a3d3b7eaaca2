"""Decides which destinations this worker serves, each for a slice of time: tenants by their weight.

A notification names a destination, not a delivery: what is due is stored in PostgreSQL, and is claimed there. A tenant
with ten thousand deliveries therefore has no more places in any queue than one with one.
"""

import asyncio
import time
from typing import Final

import asyncpg
import structlog

from app.deliveries import queries
from app.deliveries.queries import Route
from app.destinations.circuits import queries as circuit_queries
from app.errors import TrancheError
from app.kit.notifier import Notifier
from app.kit.postgres.database import Database
from app.resource_types.catalog import Catalog
from app.settings import Settings
from app.vocabulary.states import CircuitState, ErrorCode
from jobs.delivery.clients import ClientFactory, DestinationContext
from jobs.delivery.destination_worker import DestinationWorker
from jobs.delivery.recorder import Recorder
from jobs.scheduling.places import Places
from jobs.scheduling.tenant_shares import TenantShares

log = structlog.get_logger()

_PLACES: Final = 64
"""Destinations served at a time by one worker; the others wait."""
_SHORT_WAIT: Final = 60.0
_UNUSABLE: Final = 30.0
"""Seconds after which a destination that cannot be used as it is set up is looked at again."""


class Dispatcher:
    """Serves every destination that has something due."""

    def __init__(self, database: Database, clients: ClientFactory, notifier: Notifier, settings: Settings) -> None:
        self._database = database
        self._clients = clients
        self._catalog = Catalog()
        self._notifier = notifier
        self._settings = settings
        self._notified: dict[tuple[int, int], bool] = {}
        """Destinations being served; true: a notification came meanwhile."""
        self._workers: dict[tuple[int, int], DestinationWorker] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._shares = TenantShares(database)
        self._places = Places(_PLACES, self._shares.of)
        self._stopping = False

    def serve(self, tenant_id: int, destination_id: int) -> None:
        """Have this destination served soon; returns at once."""
        key = (tenant_id, destination_id)
        if self._stopping or self._database.storage.seconds:
            return  # what could not be recorded must not be sent; the scheduler comes back to it
        if key in self._notified:
            self._notified[key] = True
            if key in self._workers:
                self._workers[key].notify()
            return
        self._notified[key] = False
        task = asyncio.create_task(self._serve(key))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self, margin: float) -> None:
        """Claim nothing more, wait for calls in flight, as long as they may take and `margin` seconds more, then cancel
        them."""
        self._stopping = True
        longest = max(
            (worker.context.policy.timeouts.total for worker in self._workers.values()),
            default=self._settings.crm_total_timeout,
        )
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=longest + margin)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _serve(self, key: tuple[int, int]) -> None:
        try:
            more = True
            while more and not self._stopping:
                await self._shares.refresh()
                async with self._places.take(key[0]):
                    self._notified[key] = False
                    slice_over = await self._run_worker(*key)
                more = slice_over or self._notified[key]
        except TrancheError as error:
            # The scheduler comes back to it; the work itself is untouched in PostgreSQL.
            log.warning("destination_not_served", tenant_id=key[0], destination_id=key[1], error=error)
        except Exception:
            log.exception("destination_not_served", tenant_id=key[0], destination_id=key[1])
        finally:
            del self._notified[key]

    async def _run_worker(self, tenant_id: int, destination_id: int) -> bool:
        """Deliver what is due; true: the time slice ended before the work did, and other destinations wait."""
        context = await self._connect(tenant_id, destination_id)
        if context is None:
            return False
        destination = context.destination
        async with asyncio.TaskGroup() as group:  # it waits for attempts in flight; canceled, it cancels them
            worker = DestinationWorker(
                context=context,
                database=self._database,
                catalog=self._catalog,
                recorder=Recorder(self._database, destination.kind, context.label),
                group=group,
                notify_after=lambda seconds: self._notify_after(destination, seconds),
                stopping=lambda: self._stopping,
            )
            self._workers[tenant_id, destination_id] = worker
            try:
                while await worker.run_until(time.monotonic() + self._settings.delivery_slice):
                    if self._places.wanted(tenant_id):
                        return True
                    # No other destination waits: on with this one, as it is set up now.
                    changed = await self._connect(tenant_id, destination_id)
                    if changed is None:
                        return False
                    worker.context = changed
            except (TrancheError, asyncpg.PostgresError) as error:
                # Not raised: calls in flight shall end.
                log.warning("destination_not_served", tenant_id=tenant_id, destination_id=destination_id, error=error)
            finally:
                del self._workers[tenant_id, destination_id]
        return False

    async def _connect(self, tenant_id: int, destination_id: int) -> DestinationContext | None:
        """The client of the destination as it is set up now, after an operator's override of its circuits."""
        async with self._database.connection() as connection:
            destination = await queries.read_destination(connection, tenant_id, destination_id)
        if destination is None:
            return None
        try:
            context = self._clients.connect(destination)
        except ValueError as error:
            block = (_UNUSABLE, ErrorCode.DESTINATION_UNAVAILABLE, f"it cannot be used: {error}")
            async with self._database.connection() as connection:
                await queries.block_destination(connection, tenant_id, destination_id, *block)
            self._notify_after(destination, _UNUSABLE)
            return None
        if await self._apply_override(context):
            # The destination may have been changed after it was read, and its circuit closed for what it is now.
            return await self._connect(tenant_id, destination_id)
        return context

    async def _apply_override(self, context: DestinationContext) -> bool:
        """Open or close a circuit as an operator ordered; false: nobody did."""
        destination, client = context.destination, context.client
        async with self._database.connection() as connection:
            override = await circuit_queries.read_override(connection, *context.key)
        if override is None:
            return False
        if client is not None:
            shared = override.circuit == "crm"
            if override.circuit == "connection":
                await client.force(override.state, 0.0, f"the destination was changed ({override.by})")
            elif override.state is CircuitState.CLOSED:
                by = f"closed by an operator ({override.by})"
                await client.force(override.state, 0.0, by, shared=shared)
            elif override.seconds > 0:
                # A little shorter than the destination is blocked: else the circuit would replace its detail.
                seconds, by = max(override.seconds - 0.1, 0.01), f"opened by an operator ({override.by})"
                await client.force(override.state, seconds, by, shared=shared)
        async with self._database.connection() as connection:
            if override.circuit == "crm" and override.state is CircuitState.CLOSED:
                await circuit_queries.unblock_crm(connection, destination.kind, destination.base_url)
            await circuit_queries.clear_override(connection, *context.key, override)
        return True

    def _notify_after(self, destination: Route, seconds: float) -> None:
        """Notify a worker when the wait is over; a long one is left to the scheduler."""
        if seconds <= _SHORT_WAIT:
            due = round(time.monotonic() + seconds, 1)
            self._notifier.notify(
                destination.tenant_id, [destination.destination_id], reason=f"due:{due}", delay=seconds + 0.01
            )
