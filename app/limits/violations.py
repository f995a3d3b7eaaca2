"""What limits refused, summed up: an event a second for each kind of limit and tenant."""

import asyncio
from typing import Final

from app import telemetry
from app.limits.policies import Bucket

_INTERVAL: Final = 1.0
_Key = tuple[str, str, int | None]


class Violations:
    """Sums up what happens within a second of the first."""

    def __init__(self) -> None:
        self._refused: dict[_Key, int] = {}
        self._timer: asyncio.TimerHandle | None = None

    def note(self, bucket: Bucket, refused: int) -> None:
        """So many items or requests were refused by this limit; those of addresses are one sum."""
        tenant = int(bucket.owner.partition(":")[0]) if bucket.scope in ("key", "tenant") else None
        key = (bucket.scope, bucket.policy, tenant)
        self._refused[key] = self._refused.get(key, 0) + refused
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_INTERVAL, self._emit)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._emit()

    def _emit(self) -> None:
        self._timer = None
        refused, self._refused = self._refused, {}
        for (scope, policy, tenant_id), count in refused.items():
            telemetry.emit(telemetry.LimitExceeded(scope=scope, policy=policy, tenant_id=tenant_id, refused=count))
