"""One attempt at a delivery that sends nothing: it lists what the destination has, and keeps what nobody here knows."""

import asyncio
import random
import time
from typing import Final

import asyncpg
import structlog

from app.deliveries import queries
from app.deliveries.drift import Drift, DriftKind, Listing
from app.deliveries.queries import Recorded
from app.errors import TrancheError
from app.kit import retry
from app.kit.postgres.database import Database
from app.kit.retry import GiveUp
from app.resources.declaration import MAX_ID
from jobs.delivery.attempt_calls import AttemptCalls
from jobs.delivery.attempt_items import usable_id
from jobs.delivery.clients import DestinationContext
from jobs.delivery.recorder import Recorder

log = structlog.get_logger()

_MOST_CURSOR: Final = 4_000
_MOST_FOUND: Final = 5_000
"""Keys of one delivery; another one goes on after them."""
_LONGEST: Final = 10.0
"""Seconds after which an attempt keeps what it has."""
_NOT_READ: Final = 0.5
"""Seconds before the next attempt of one that could not make a call."""


class ListingAttempt:
    def __init__(
        self, calls: AttemptCalls, context: DestinationContext, database: Database, recorder: Recorder
    ) -> None:
        self._claim, self._crm = calls.claim, calls.crm
        self._calls = calls
        self._policy = context.policy
        self._database = database
        self._recorder = recorder
        self._began = time.monotonic()
        self._place = calls.claim.listing or Listing()
        self._ended = False
        """There is nothing more to list, or another delivery is to go on."""
        self._failed = ""
        """Why the last call brought nothing."""
        self._found: dict[str, str] = {}
        """Keys that nobody here knows, and their ids there."""

    async def run(self) -> Recorded | None:
        """Make the attempt and record it; `None`: the lease was lost to another worker."""
        try:
            await self._read()
        except asyncio.CancelledError:
            await asyncio.shield(self._finish())
            raise
        except (TrancheError, asyncpg.PostgresError) as error:
            log.warning("listing_postponed", delivery_id=self._claim.delivery_id, error=error)
        except Exception as error:
            log.exception("listing_failed", delivery_id=self._claim.delivery_id)
            self._failed = f"Tranche failed: {type(error).__name__}"
        return await self._finish()

    async def _read(self) -> None:
        if not self._crm.lists:
            self._place, self._ended = Listing(), True
            return
        if self._claim.lost >= self._policy.retry.attempts:
            self._failed, self._ended = "every worker that read it was stopped meanwhile", True
            return
        while not self._ended:
            page = await self._calls.list_keys(self._place.after)
            if page is None:
                return
            if page.keys is None:
                self._failed = page.detail or "its list could not be read"
                return
            if page.after is not None and ("\0" in page.after or len(page.after) > _MOST_CURSOR):
                self._failed = "where its list goes on cannot be stored"
                return
            keys = [key for key in page.keys if "\0" not in key and len(key) <= MAX_ID]  # no other is ours
            async with self._database.connection() as connection:
                unknown = await queries.unknown_keys(connection, self._claim, keys)
            self._found |= {key: page.keys[key] for key in unknown}
            following = None if page.after is None else self._place.move(page.after)
            if page.after is not None and following is None:
                self._failed, self._ended = "its list goes round", True
                return
            self._place = following or Listing()
            full = len(self._claim.record_ids) + len(self._found) >= _MOST_FOUND
            late = time.monotonic() - self._began >= _LONGEST
            self._ended = page.after is None or full or late

    async def _finish(self) -> Recorded | None:
        await self._calls.release()
        claim, wait = self._claim, self._wait()
        listing = Listing(failed=self._failed) if wait is None and self._failed else self._place
        first = len(claim.record_ids)
        drift = {
            str(first + place): Drift(kind=DriftKind.UNKNOWN, remote_id=usable_id(remote_id))
            for place, remote_id in enumerate(self._found.values())
        }
        attempts = claim.attempt if self._failed else claim.attempt - 1
        return await self._recorder.record_listing(
            claim,
            list(self._found),
            drift,
            listing,
            attempts=max(attempts, 0),
            wait=wait,
            block=self._calls.blocked,
            called=self._calls.made,
            until=self._calls.leased_until,
        )

    def _wait(self) -> float | None:
        """Seconds before the next attempt; `None`: it was the last one."""
        if self._ended:
            return None
        if not self._failed:
            return 0.0 if self._calls.blocked else _NOT_READ
        age = self._claim.age + time.monotonic() - self._began
        decision = retry.decide(self._claim.attempt, 0.0, age, self._policy.retry, random.random)
        return None if isinstance(decision, GiveUp) else decision.delay
