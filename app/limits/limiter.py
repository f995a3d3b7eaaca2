"""Rate limits that all processes keep together: one number for each bucket in Redis, one Lua script over several.

While Redis is away each process keeps them by itself, with the limits divided by the number of processes.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import resources
from typing import Final

import msgspec
from redis.asyncio import Redis

from app import telemetry
from app.errors import RateLimited, TooLarge
from app.kit.redis_fallback import RedisFallback
from app.limits import rules
from app.limits.policies import Bucket
from app.limits.rules import FULL, MICROSECONDS, Level, Mode
from app.limits.violations import Violations
from app.vocabulary.rate_limits import Limit

_SWEEP_AT: Final = 10_000
_LEASE_SECONDS: Final = 1.0
_LEASED: Final = 0.1
"""Of what comes back in a second, this much is taken ahead."""
_MOST_LEASED: Final = 100


class Decision(msgspec.Struct):
    """What was decided, and what is left of each bucket."""

    buckets: tuple[Bucket, ...]
    limits: Sequence[Limit]
    """Those that were applied: of a process alone, they are smaller."""
    levels: Sequence[Level]
    taken: int
    wanted: int
    leased: int = 0
    """Tokens that were taken ahead of later requests, and are left."""

    def remaining(self) -> Iterator[tuple[Bucket, int, float]]:
        """Of each bucket: how many tokens are left, and the seconds until it is full."""
        for bucket, limit, level in zip(self.buckets, self.limits, self.levels, strict=True):
            seconds = (level.micros + (level.part > 0)) / MICROSECONDS
            yield bucket, min(limit.quota, rules.free(level, limit) + self.leased), seconds

    def wait(self, tokens: int = 1) -> float:
        """Seconds until so many more are there, as the rates of all buckets have it."""
        micros = (rules.wait(level, limit, tokens) for level, limit in zip(self.levels, self.limits, strict=True))
        return max(micros, default=0) / MICROSECONDS

    def wait_for_share(self) -> float:
        """Seconds until what was wanted may be taken, going into debt."""
        found = zip(self.levels, self.limits, strict=True)
        return max(rules.wait(level, limit, rules.share(limit, self.wanted)) for level, limit in found) / MICROSECONDS

    def violated(self, tokens: int = 1) -> tuple[Bucket, ...]:
        """The buckets that do not have so many."""
        found = zip(self.buckets, self.limits, self.levels, strict=True)
        return tuple(bucket for bucket, limit, level in found if rules.free(level, limit) < tokens)

    @property
    def tightest(self) -> Bucket:
        """The bucket that has least, in time."""
        waits = [rules.wait(level, limit, 1) for level, limit in zip(self.levels, self.limits, strict=True)]
        return self.buckets[waits.index(max(waits))]

    def too_small(self) -> Bucket | None:
        """A bucket that never holds what was wanted."""
        return next((bucket for bucket in self.buckets if bucket.limit.quota < self.wanted), None)


class _Lease(msgspec.Struct):
    decision: Decision
    left: int
    until: float


class Limiter:
    """Decides about tokens.

    Args:
        redis: `None`: this process alone.
        processes: how many share the limits until `count` says otherwise.
        clock: seconds since the epoch, for the rule in this process (shared buckets go by Redis `TIME`).
        pinned_time: microseconds that replace Redis `TIME`; for tests that compare histories.
    """

    def __init__(
        self,
        redis: Redis | None,
        *,
        processes: int = 1,
        clock: Callable[[], float] = time.time,
        pinned_time: Callable[[], int] | None = None,
    ) -> None:
        self.redis = redis
        self.processes = processes
        self.violations = Violations()
        self._clock = clock
        self._fallback = RedisFallback(clock, "no Redis configured" if redis is None else None, part="rate_limit")
        script = (resources.files(__package__) / "gcra.lua").read_text("utf-8")
        self._script = None if redis is None else redis.register_script(script)
        self._pinned_time = pinned_time
        self._levels: dict[str, Level] = {}
        self._leases: dict[tuple[Bucket, ...], _Lease] = {}
        self._alone = False

    async def take(self, buckets: tuple[Bucket, ...], tokens: int, mode: Mode = "part") -> Decision:
        """As many of the tokens as every bucket has, up to all; see `rules.Mode`."""
        decision = await self._decide(buckets, tokens, mode)
        if decision.taken < tokens and mode in ("part", "whole"):
            short = decision.violated(tokens if mode == "whole" else 1)
            self.violations.note((short or buckets)[0], tokens - decision.taken)
        return decision

    async def _decide(self, buckets: tuple[Bucket, ...], tokens: int, mode: Mode) -> Decision:
        limits: Sequence[Limit] = [bucket.limit for bucket in buckets]
        script = self._script
        if script is not None:
            now = "" if self._pinned_time is None else self._pinned_time()
            arguments: list[str | int] = [now, tokens, mode, rules.SHARE]
            for limit in limits:
                arguments += limit.quota, limit.window_seconds * MICROSECONDS
            keys = [bucket.key for bucket in buckets]
            answer = await self._fallback.ask(lambda: script(keys=keys, args=arguments))
            self._say_alone(answer is None)
            if answer is not None:
                now, taken, *left = answer[0]
                levels = [Level(now, *pair) for pair in zip(left[::2], left[1::2], strict=True)]
                return Decision(buckets, limits, levels, taken, tokens)
        return self._decide_alone(buckets, tokens, mode)

    def _decide_alone(self, buckets: tuple[Bucket, ...], tokens: int, mode: Mode) -> Decision:
        now = round(self._clock() * MICROSECONDS)
        limits = [
            msgspec.structs.replace(bucket.limit, quota=max(1, bucket.limit.quota // self.processes))
            for bucket in buckets
        ]
        levels = [rules.at(self._levels.get(bucket.key, FULL), now) for bucket in buckets]
        taken, levels = rules.decide(levels, limits, tokens, mode)
        if len(self._levels) >= _SWEEP_AT:
            self._levels = {key: level for key, level in self._levels.items() if rules.at(level, now).micros}
        if taken:
            self._levels.update((bucket.key, level) for bucket, level in zip(buckets, levels, strict=True))
        return Decision(buckets, limits, levels, taken, tokens)

    def _say_alone(self, alone: bool) -> None:
        if alone != self._alone:
            self._alone = alone
            telemetry.emit(telemetry.LimitsAlone(alone=alone, processes=self.processes, reason=self._fallback.away))

    async def take_one(self, buckets: tuple[Bucket, ...]) -> Decision:
        """One token, of those that this process took ahead if there are any: a poll must not cost a call of Redis.

        At most a tenth of what comes back in a second is ahead, and is lost after a second.
        """
        now = time.monotonic()
        lease = self._leases.get(buckets)
        if lease is not None and lease.left and now < lease.until:
            lease.left -= 1
            decision = lease.decision
            decision.leased = lease.left
            return decision
        ahead = min(b.limit.quota / b.limit.window_seconds * _LEASED for b in buckets)
        decision = await self._decide(buckets, max(1, min(_MOST_LEASED, int(ahead))), "part")
        if not decision.taken:
            self.violations.note((decision.violated() or buckets)[0], 1)
        if decision.taken > 1:
            if len(self._leases) >= _SWEEP_AT:
                self._leases = {key: kept for key, kept in self._leases.items() if kept.until > now}
            decision.leased = decision.taken - 1
            self._leases[buckets] = _Lease(decision, decision.leased, now + _LEASE_SECONDS)
        return decision

    async def return_one(self, buckets: tuple[Bucket, ...]) -> Decision:
        """A token of `take_one` was not used."""
        if (lease := self._leases.get(buckets)) is None:
            return await self._decide(buckets, 1, "refund")
        lease.left += 1
        lease.decision.leased = lease.left
        return lease.decision

    async def refund(self, buckets: tuple[Bucket, ...], tokens: int) -> None:
        """Give tokens back that were not used."""
        if buckets and tokens:
            await self._decide(buckets, tokens, "refund")

    def close(self) -> None:
        self.violations.close()


class Budget:
    """The items of one request, and what was taken for them."""

    def __init__(self, limiter: Limiter, buckets: tuple[Bucket, ...]) -> None:
        self._limiter = limiter
        self._buckets = buckets
        self._taken = 0
        self.decision: Decision | None = None
        """The last one; `None`: nothing is limited."""

    async def take(self, items: int, *, whole: bool = False) -> int:
        """How many of the items there are tokens for."""
        if not self._buckets or not items:
            return items
        self.decision = await self._limiter.take(self._buckets, items, "whole" if whole else "part")
        self._taken += self.decision.taken
        return self.decision.taken

    async def charge(self, items: int) -> float:
        """Take tokens for all the items, going into debt where the buckets hold fewer, as soon as a share of them is
        there; returns the seconds after which to ask again, 0: they are taken."""
        if not self._buckets or items == self._taken:
            return 0.0
        await self.refund()
        self.decision = await self._limiter.take(self._buckets, items, "debt")
        self._taken = self.decision.taken
        return 0.0 if self._taken else self.decision.wait_for_share()

    async def refund(self, items: int | None = None) -> None:
        """Give back what was taken for so many items, or for all."""
        items = self._taken if items is None else items
        self._taken -= items
        await self._limiter.refund(self._buckets, items)

    def seconds(self, place: int) -> int:
        """When the item fits that is the n-th of those for which there are no tokens: seconds from now."""
        return max(1, math.ceil(self._decided.wait(place)))

    def describe(self) -> str:
        """Why there are no more tokens."""
        return f"the limit of {self._decided.tightest.describe()} is used up"

    def refusal(self, items: int, *, whole: bool) -> RateLimited | TooLarge:
        """The error where nothing of so many items is done: there is no token, or with `whole` not for all."""
        if not whole:
            return refuse(self._decided)
        if small := self._decided.too_small():
            return TooLarge(
                f"With atomic=true all {items} items must fit into the limit of {small.describe()} at once, which they "
                "never do: send them without atomic=true, or in several requests, or have the limit raised."
            )
        return refuse(self._decided, tokens=items)

    @property
    def _decided(self) -> Decision:
        assert self.decision is not None, "nothing is limited"
        return self.decision


def refuse(decision: Decision, *, tokens: int = 1, seconds: float | None = None) -> RateLimited:
    """The error for a request that so many tokens are not left for; `seconds`: when they are, unless as decided."""
    violated = decision.violated(tokens) or decision.buckets
    return RateLimited(
        f"The limit of {violated[0].describe()} is used up; nothing happened. Send the same request again after the "
        "time given.",
        retry_after=max(decision.wait(tokens) if seconds is None else seconds, 0.001),
        violated=[bucket.name for bucket in violated],
    )
