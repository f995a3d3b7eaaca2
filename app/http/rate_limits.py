"""Rate limits of requests: what each costs, when it is refused, and the header fields that say so
(draft-ietf-httpapi-ratelimit-headers-11, and the older `X-RateLimit-…`)."""

import math
import time
from collections.abc import Iterable
from typing import Any, Final

from cachetools import LRUCache

from app.errors import RateLimited
from app.http.client_address import ClientAddresses
from app.http.principal import Principal
from app.http.request_context import Exchange
from app.limits.limiter import Budget, Decision, Limiter, refuse
from app.limits.policies import Bucket, Policies, Policy
from app.settings import Settings

_MOST_ADDRESSES: Final = 10_000
_MOST_KEYS: Final = 10_000
_Fields = list[tuple[bytes, bytes]]


class RequestLimits:
    """Those of keys, tenants and the service, for each request with a good key."""

    def __init__(self, settings: Settings, limiter: Limiter) -> None:
        self._limiter = limiter
        self._policies = Policies(settings)
        self._buckets: LRUCache[tuple[Policy, Principal], tuple[Bucket, ...]] = LRUCache(_MOST_KEYS)

    async def admit(self, exchange: Exchange, principal: Principal) -> None:
        """
        Raises:
            RateLimited: no request is left to the key, its tenant or all.
        """
        buckets = self._buckets_of("requests", principal)
        if not buckets:
            return
        decision = await self._limiter.take_one(buckets)
        exchange.limits.append(decision)
        if not decision.taken:
            raise refuse(decision)

    async def take_back(self, exchange: Exchange, principal: Principal) -> None:
        """The request was refused for its items: it costs nothing."""
        if buckets := self._buckets_of("requests", principal):
            exchange.limits[:] = [await self._limiter.return_one(buckets)]

    def budget(self, principal: Principal) -> Budget:
        """For the items of one request."""
        return Budget(self._limiter, self._buckets_of("items", principal))

    def _buckets_of(self, policy: Policy, holder: Principal) -> tuple[Bucket, ...]:
        found = self._buckets.get((policy, holder))
        if found is None:
            found = self._policies.of_key(policy, holder.tenant_id, holder.key_id, holder.limits, holder.tenant_limits)
            self._buckets[policy, holder] = found
        return found


class AddressLimits:
    """That of addresses that send requests without a good key: each such request costs a token, and an address that
    has none left is refused until it has one, without a look at its key."""

    def __init__(self, settings: Settings, limiter: Limiter) -> None:
        self._limiter = limiter
        self._policies = Policies(settings)
        self._addresses = ClientAddresses(settings.trusted_proxies, settings.forwarded_header)
        self.blocked: LRUCache[str, tuple[float, Decision]] = LRUCache(_MOST_ADDRESSES)
        """Addresses without a token, as this process knows, and until when."""

    def refusal(self, scope: Any, exchange: Exchange) -> RateLimited | None:
        """The answer to a request of an address that has no token; `None`: it has one."""
        address = self._addresses.find(scope)
        if address is None or address not in self.blocked:
            return None
        until, decision = self.blocked[address]
        seconds = until - time.monotonic()
        if seconds <= 0:
            del self.blocked[address]
            return None
        exchange.limits.append(decision)
        self._limiter.violations.note(decision.buckets[0], 1)
        return refuse(decision, seconds=seconds)

    async def charge(self, scope: Any, status: int) -> None:
        """A request of this address was answered so: with 401, its key was no good."""
        address = self._addresses.find(scope) if status == 401 else None
        if address is None or address in self.blocked or not (buckets := self._policies.of_address(address)):
            return
        decision = await self._limiter.take(buckets, 1)
        if decision.violated():
            self.blocked[address] = (time.monotonic() + decision.wait(), decision)


def limit_fields(decisions: Iterable[Decision]) -> _Fields:
    """The header fields of an answer; the `X-` ones are of the bucket with the smallest part left."""
    policies, states, tightest, share = [], [], (0, 0, 0.0), 2.0
    for decision in decisions:
        for bucket, left, seconds in decision.remaining():
            limit, name = bucket.limit, bucket.name
            policies.append(f'"{name}";q={limit.quota};w={limit.window_seconds}')
            states.append(f'"{name}";r={left};t={math.ceil(seconds)}')
            if left / limit.quota < share:
                share, tightest = left / limit.quota, (limit.quota, left, seconds)
    if not states:
        return []
    quota, left, seconds = tightest
    return [
        (b"x-ratelimit-limit", b"%d" % quota),
        (b"x-ratelimit-remaining", b"%d" % left),
        (b"x-ratelimit-reset", b"%d" % math.ceil(time.time() + seconds)),
        (b"ratelimit-policy", ", ".join(policies).encode()),
        (b"ratelimit", ", ".join(states).encode()),
    ]
