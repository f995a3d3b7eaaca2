"""How a destination's deliveries are made: what its options decide, else the settings."""

from collections.abc import Mapping
from typing import Any, Final, Self

import msgspec

from app.destinations.options import limits_of
from app.destinations.presets import resolve_preset
from app.kit.retry import RetryPolicy
from app.settings import Settings
from jobs.crm.port import Timeouts

LEASE_MARGIN: Final = 5.0
"""Seconds that a lease is longer than the longest call: the time to claim, load and record."""


class DeliveryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Times in seconds."""

    timeouts: Timeouts
    rate: float
    """Calls a second, by all workers together; 0: no limit."""
    concurrency: int
    """Deliveries at a time, by all workers together."""
    lease: float
    reconcile_grace: float
    """An item in doubt that is absent twice, so far apart, was never written."""
    retry: RetryPolicy

    @classmethod
    def of(cls, settings: Settings, options: Mapping[str, Any]) -> Self:
        """Raises `ValueError`: an option cannot be used."""
        limits = limits_of(resolve_preset(options))
        total = limits.total_timeout or settings.crm_total_timeout
        connect = limits.connect_timeout or settings.crm_connect_timeout
        return cls(
            timeouts=Timeouts(min(connect, total), total),
            rate=settings.crm_rate if limits.rate is None else limits.rate,
            concurrency=limits.concurrency or settings.delivery_concurrency,
            lease=max(settings.delivery_lease, total + LEASE_MARGIN),
            reconcile_grace=settings.reconcile_grace,
            retry=RetryPolicy.from_settings(settings),
        )
