"""Sends events to tenants' endpoints: each at least once, under one event id, in no promised order.

Messages are stored in PostgreSQL, and claimed there one at a time. A worker that dies with one leaves it to the next:
a claim is no more than a later due time.
"""

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any, Final

import aiohttp
import asyncpg
import msgspec
import structlog

from app.audit.queries import SYSTEM, write_audit
from app.errors import TrancheError
from app.kit.encryption import WEBHOOK_ENDPOINT, Vault
from app.kit.postgres.database import Connection, Database
from app.settings import Settings
from app.telemetry import WebhookAttempted, emit
from app.tracing import context, spans
from app.tracing.context import TraceContext
from app.tracing.spans import Kind
from app.vocabulary import addresses
from app.vocabulary.waits import parse_waits
from app.webhooks import queries as webhook_queries
from app.webhooks.queries import Claimed, WebhookAttempt
from app.webhooks.rules import MessageState, Policy, Verdict, judge, sign, without_signature
from jobs.outbound.messages import DETAIL_LENGTH, USER_AGENT, retry_after, sanitize_message
from jobs.outbound.ssrf import open_session
from jobs.outbound.tracebacks import drop_tracebacks

log = structlog.get_logger()

_LOOK: Final = 0.5
"""Seconds between looks for what is due, at most: what a first attempt waits for."""
_MOST_CALLS: Final = 4
"""Most calls of one endpoint at a time in one worker."""
_LEASE_MARGIN: Final = 10.0
"""Seconds beyond a call's longest time after which a message is due again."""
_EARLY: Final = 3
"""Attempts that a message has before an endpoint that fails for long is disabled by it: an endpoint that receives
few events may have been well for days, and is down for a moment."""
_ANSWER: Final = 1_000
"""Bytes of an answer that are read, if it is to be explained."""


class _Schedule(msgspec.Struct, frozen=True):
    """A policy in numbers: waits, longest call and how long an endpoint may fail, in seconds."""

    waits: tuple[float, ...]
    timeout: float
    disable_after: float | None


_GONE: Final = "it answered 410: it wants no more events"


class WebhookSender:
    """Serves every endpoint that has something due, each by a few tasks, all of them by `webhook_concurrency`.

    An endpoint whose last call failed gets one task, and all of these together half of the places: one that takes its
    time and then fails cannot hold up those that answer.
    """

    def __init__(
        self,
        database: Database,
        vault: Vault,
        settings: Settings,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = random.random,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._database = database
        self._vault = vault
        self._settings = settings
        self._monotonic = monotonic
        self._random = random
        self._now = now
        self._policies = {
            Policy.SHORT: _Schedule(parse_waits(settings.webhook_waits), settings.webhook_timeout, None),
            Policy.STANDARD: _Schedule(
                parse_waits(settings.webhook_standard_waits),
                settings.webhook_standard_timeout,
                settings.webhook_disable_after,
            ),
        }
        places = max(1, settings.webhook_concurrency)
        self._places = asyncio.Semaphore(places)
        self._failing_places = asyncio.Semaphore(max(1, places // 2))
        self._session = open_session(addresses.parse_networks(settings.webhook_private), connections=places)
        self._failing: set[tuple[int, int]] = set()
        """Endpoints whose last call from here failed."""
        self._in_progress: set[tuple[int, int]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False

    async def run(self) -> None:
        """Look for what is due until canceled; calls in flight are for `stop`."""
        while True:
            try:
                await self.look()
            except TrancheError as error:
                log.warning("webhooks_poll_failed", error=error)
            except Exception:
                log.exception("webhooks_poll_failed")
            await asyncio.sleep(min(_LOOK, self._settings.sweep_interval))

    async def look(self) -> None:
        """One pass: begin to serve endpoints that have something due."""
        async with self._database.connection() as connection:
            due = await webhook_queries.due_endpoints(connection)
        for key in due:
            if key not in self._in_progress and not self._stopping:
                self._in_progress.add(key)
                task = asyncio.create_task(self._serve(key))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Claim nothing more, let calls in flight end and be recorded."""
        self._stopping = True
        if self._tasks:
            longest = max(schedule.timeout for schedule in self._policies.values())
            _, late = await asyncio.wait(self._tasks, timeout=longest + 1)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await self._session.close()

    async def _serve(self, key: tuple[int, int]) -> None:
        try:
            await self._drain(key)
        finally:
            self._in_progress.discard(key)

    async def _drain(self, key: tuple[int, int]) -> None:
        """Send all that is due to an endpoint; only a call that succeeded adds a task."""
        tasks = 0

        async with asyncio.TaskGroup() as group:

            def add_task() -> None:
                nonlocal tasks
                if tasks < _MOST_CALLS:
                    tasks += 1
                    group.create_task(send_all())

            async def send_all() -> None:
                nonlocal tasks
                try:
                    while not self._stopping:
                        went_well = await self._send_one(key)
                        if went_well is None or (not went_well and tasks > 1):
                            return
                        if went_well:
                            add_task()
                except (TrancheError, asyncpg.PostgresError) as error:
                    # What it held is due again when its lease is over.
                    log.warning("webhooks_not_sent", tenant_id=key[0], endpoint_id=key[1], error=error)
                except Exception:
                    log.exception("webhooks_not_sent", tenant_id=key[0], endpoint_id=key[1])
                finally:
                    tasks -= 1

            add_task()

    async def _send_one(self, key: tuple[int, int]) -> bool | None:
        """Claim and send one; `None`: nothing is due."""
        async with AsyncExitStack() as held:
            if key in self._failing:
                await held.enter_async_context(self._failing_places)
            await held.enter_async_context(self._places)
            if self._stopping:
                return None
            async with self._database.connection() as connection:
                claimed = await webhook_queries.claim_message(
                    connection,
                    *key,
                    lease=self._policies[Policy.SHORT].timeout + _LEASE_MARGIN,
                    standard_lease=self._policies[Policy.STANDARD].timeout + _LEASE_MARGIN,
                )
            if claimed is None:
                return None
            attempt, verdict = await self._attempt(claimed)
        well = verdict.state is MessageState.OK
        (self._failing.discard if well else self._failing.add)(key)
        async with self._database.connection() as connection:
            if await self._record(connection, claimed, attempt, verdict):
                await webhook_queries.close_messages(connection, *key, "the endpoint was disabled")
        emit(
            WebhookAttempted(
                tenant_id=key[0],
                endpoint_id=key[1],
                event_id=str(claimed.event_id),
                attempt=claimed.attempt,
                state=verdict.state.value,
                status=attempt.status,
                seconds=attempt.milliseconds / 1000,
            )
        )
        return well

    async def _record(
        self, connection: Connection, claimed: Claimed, attempt: WebhookAttempt, verdict: Verdict
    ) -> bool:
        """Whether the endpoint is disabled by it."""
        policy = self._policies[claimed.policy]
        early = claimed.attempt < min(_EARLY, len(policy.waits) + 1)
        too_long = f"no attempt has succeeded for {(policy.disable_after or 0) / 86_400:.3g} days"
        async with connection.transaction():
            disabled = await webhook_queries.record_attempt(
                connection,
                claimed,
                attempt,
                verdict,
                disable_after=None if early else policy.disable_after,
                why=too_long,
            )
            if disabled:
                why = _GONE if verdict.disable else too_long
                await webhook_queries.notify_disabled(connection, claimed.tenant_id, claimed.endpoint_id, why)
                subject = f"webhook_endpoint:{claimed.endpoint_id}"
                await write_audit(connection, claimed.tenant_id, SYSTEM, "webhook.disable", subject, {"reason": why})
        if disabled:
            log.warning(
                "webhook_endpoint_disabled", tenant_id=claimed.tenant_id, endpoint_id=claimed.endpoint_id, reason=why
            )
        return disabled

    async def _attempt(self, claimed: Claimed) -> tuple[WebhookAttempt, Verdict]:
        attributes: spans.Attributes = {
            "http.request.method": "POST",
            "tranche.tenant_id": claimed.tenant_id,
            "tranche.endpoint_id": claimed.endpoint_id,
            "tranche.event_id": str(claimed.event_id),
            "tranche.attempt": claimed.attempt,
        }
        with spans.span("send webhook", Kind.CLIENT, context.read(claimed.trace_context), attributes) as span:
            # The task makes one attempt after the other, and each binds its own.
            structlog.contextvars.bind_contextvars(
                request_id=claimed.request_id, trace_id=span.context.trace_id, message_id=claimed.message_id
            )
            attempt, verdict = await self._call(claimed, span.context)
            span.note({"http.response.status_code": attempt.status})
            if verdict.state is not MessageState.OK:
                span.fail(str(attempt.status or "no_answer"))
        return attempt, verdict

    async def _call(self, claimed: Claimed, trace: TraceContext) -> tuple[WebhookAttempt, Verdict]:
        began = self._monotonic()
        at = self._now()
        asked: float | None = None
        status: int | None = None
        policy = self._policies[claimed.policy]
        headers = {"Content-Type": "application/json", "User-Agent": USER_AGENT, **trace.fields()}
        if claimed.request_id:
            headers["X-Request-ID"] = claimed.request_id
        try:
            headers |= sign(self._secrets(claimed), str(claimed.event_id), at, claimed.body)
            async with self._session.post(
                claimed.url,
                data=claimed.body.encode(),
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=policy.timeout, ceil_threshold=policy.timeout + 1),
                allow_redirects=False,
            ) as answer:
                status = answer.status
                asked = retry_after(answer.headers, at)
                detail = await _explain(answer)
        except (aiohttp.ClientError, OSError, ValueError, TrancheError) as error:
            late = isinstance(error, TimeoutError)
            detail = f"no answer within {policy.timeout:g} s" if late else _describe(error)
            drop_tracebacks(error)
        milliseconds = round((self._monotonic() - began) * 1000)
        verdict = judge(status, claimed.attempt, policy.waits, self._random, policy=claimed.policy, retry_after=asked)
        made = WebhookAttempt(
            at=at,
            status=status,
            milliseconds=milliseconds,
            detail=sanitize_message(detail, ""),
            headers=None if verdict.state is MessageState.OK else without_signature(headers),
        )
        return made, verdict

    def _secrets(self, claimed: Claimed) -> list[str]:
        """Those that sign now, the newest first."""
        sealed = [claimed.secret, *filter(None, [claimed.previous_secret])]
        return [
            self._vault.open(
                one, tenant_id=claimed.tenant_id, name=str(claimed.endpoint_id), kind=WEBHOOK_ENDPOINT, address=""
            )
            for one in sealed
        ]


async def _explain(answer: aiohttp.ClientResponse) -> str:
    """What was answered, for people to read; the status counts, whatever becomes of the text."""
    if answer.status < 300:
        return "ok"
    if answer.status < 400:
        return f"answered {answer.status}, a redirect; they are not followed, so name the final URL"
    text = b""
    try:
        text = await answer.content.read(_ANSWER)
    except (aiohttp.ClientError, OSError, ValueError) as error:
        drop_tracebacks(error)
    answer.close()
    said = sanitize_message(text.decode("utf-8", "replace"), "")
    return f"answered {answer.status}{f': {said}' if said else ''}"[:DETAIL_LENGTH]


def _describe(error: BaseException) -> str:
    inner: Any = getattr(error, "os_error", None) or error
    return str(getattr(inner, "strerror", None) or inner) or type(inner).__name__
