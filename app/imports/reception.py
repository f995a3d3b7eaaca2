"""A body of items on its way in: read byte for byte, and imported at once or stored for later; the use cases decide."""

import asyncio
import contextlib
import random
import uuid
from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec
from litestar.response.base import ASGIResponse
from uuid_utils.compat import uuid7

from app import telemetry
from app.auth.authorization import Scopes
from app.errors import Invalid, MalformedRequest, Overloaded, RateLimited, TooLarge, Unauthorized
from app.files.readers import Family
from app.http.body.limits import Intake, Place
from app.http.body.reader import Limits, hear_end, open_body
from app.http.headers import Fields, Preferences
from app.http.operation import respond
from app.http.principal import Principal
from app.http.rate_limits import RequestLimits
from app.http.request_context import Exchange
from app.imports import queries
from app.imports import service as import_service
from app.imports import upload as import_upload
from app.imports.service import Accepted207, ImportRequest, Replay
from app.imports.workbooks import Workbooks
from app.job_status import service as job_status_service
from app.job_status.live.long_poll import LongPoll
from app.kit.compression import pack
from app.kit.notifier import Notifier
from app.kit.postgres.database import Database
from app.limits.limiter import Budget
from app.resource_types.catalog import Catalog
from app.sagas import consistency
from app.settings import Settings
from app.telemetry import ItemsDecided, SagaMoved, emit
from app.vocabulary import outcomes_wire
from app.vocabulary.states import SagaState

SCOPES: Final = Scopes("import")

_STEP: Final = 65_536
"""Bytes of room that a body of unknown length takes at a time."""
_TICKS: Final = 4
"""In a lease: how often a body that does not come is still known to be awaited."""


def route_of(type: str) -> str:
    """The scope of an idempotency key, beside the tenant."""
    return f"POST /v1/{type}:bulk"


class _Named(msgspec.Struct):
    job_id: str


class ReceivedImport(msgspec.Struct, frozen=True, kw_only=True):
    """A request but for its body."""

    upload: ImportRequest
    fields: Fields
    preferences: Preferences
    exchange: Exchange
    principal: Principal

    @property
    def echo(self) -> dict[str, str]:
        """What every answer carries."""
        return {"Idempotency-Key": self.exchange.idempotency_key or ""}


class Importer(msgspec.Struct, frozen=True):
    """Reads bodies, and has them imported at once or later."""

    settings: Settings
    database: Database
    intake: Intake
    notifier: Notifier
    long_poll: LongPoll
    catalog: Catalog
    limits: RequestLimits
    workbooks: Workbooks

    async def take(self, receive: Any, asked: ReceivedImport) -> ASGIResponse:
        with self.intake.place(asked.upload.tenant_id, asked.upload.key_id) as place:
            return await self._take(receive, asked, place)

    async def _take(self, receive: Any, asked: ReceivedImport, place: Place) -> ASGIResponse:
        settings = self.settings
        limits = _limit(settings, asked.upload)
        ahead = not asked.preferences.respond_async
        clock = asyncio.get_running_loop().time
        began = clock()
        # A body that says how long it is has all its room before its first byte: it can then be taken to its end.
        place.hold(min(_foresee(asked.fields), settings.max_sync_bytes if ahead else _staging_memory(settings)))
        async with contextlib.aclosing(open_body(receive, asked.fields, limits, place.hold_window)) as body:
            held: list[bytes] = []
            decided: Accepted207 | Replay | None = None
            if ahead and await _read_ahead(body, held, settings.max_sync_bytes, place):
                # The time that its body took is the client's own.
                until = asked.exchange.started + (clock() - began) + settings.import_deadline
                decided = await self._decide(asked, b"".join(held), until, receive)
            if decided is not None:
                return await self._answer_now(asked, decided)
            kept = asked.upload.form.family is Family.XLSX
            return await self._answer_later(asked, _chain(held, body, place, _staging_memory(settings), kept=kept))

    async def _decide(
        self, asked: ReceivedImport, body: bytes, until: float, receive: Any
    ) -> Accepted207 | Replay | None:
        """None: it holds more items than are decided at once."""
        budget = self.limits.budget(asked.principal)
        try:
            return await self._accept(asked, body, until, receive, budget)
        except RateLimited:
            await self.limits.take_back(asked.exchange, asked.principal)
            raise
        finally:
            if budget.decision is not None:
                asked.exchange.limits.append(budget.decision)

    async def _accept(
        self, asked: ReceivedImport, body: bytes, until: float, receive: Any, budget: Budget
    ) -> Accepted207 | Replay | None:
        rows: bytes | None = None
        if asked.upload.form.family is Family.XLSX:
            # A workbook may wait for others; what it then is, is decided in its turn, as any body.
            try:
                async with asyncio.timeout_at(until):
                    rows = await self.workbooks.unfold(body, asked.upload.form, atomic=asked.upload.options.atomic)
            except TimeoutError as error:
                raise Overloaded(retry_after=self.settings.db_lock_timeout) from error
            except (MalformedRequest, Invalid, TooLarge):
                # A key that is in use says so, whatever is wrong with this body.
                if replay := await import_service.look_up(self.database, asked.upload, body):
                    return replay
                raise
            if rows is None:
                return None
        # The turn comes before the work: what waits is bytes, not the many times larger objects that are in them.
        async with self.database.import_slot(len(body), until=until, gone=lambda: hear_end(receive)) as slot:
            try:
                async with asyncio.timeout_at(until):
                    decided = await import_service.accept(
                        self.database,
                        asked.upload,
                        body,
                        self.settings,
                        catalog=self.catalog,
                        new_id=uuid7,
                        random=random.SystemRandom().random,
                        budget=budget,
                        rows=rows,
                    )
            except TimeoutError as error:
                telemetry.emit(telemetry.RequestShed(reason="deadline", tenant_id=asked.upload.tenant_id))
                raise Overloaded(retry_after=self.settings.db_lock_timeout) from error
            slot.accepted = isinstance(decided, Accepted207) and not asked.upload.options.dry_run
        return decided

    async def _answer_now(self, asked: ReceivedImport, decided: Accepted207 | Replay) -> ASGIResponse:
        wait = asked.preferences.wait
        if isinstance(decided, Replay):
            return _replay(decided, asked.echo)
        asked.exchange.items = decided.summary.total
        emit(ItemsDecided(counts=decided.counts))
        if asked.upload.options.consistent and decided.to_notify:
            _say_promised(asked.upload, decided.job_id)
        self.notifier.notify(asked.upload.tenant_id, decided.to_notify, reason=str(decided.job_id))
        if wait:
            settled = await self._hold(asked.upload, decided, asked.exchange.started + wait)
            if isinstance(settled, Replay):
                return _replay(settled, asked.echo)
            return _answer(decided, settled, asked.echo, asked.preferences)
        return _answer(decided, decided.body, asked.echo, asked.preferences)

    async def _answer_later(self, asked: ReceivedImport, body: AsyncIterator[bytes]) -> ASGIResponse:
        """Store the body. `Prefer: wait` is not heeded here: nothing will be settled so soon."""
        loop = asyncio.get_running_loop()
        upload = asked.upload
        accepted = await import_upload.receive(
            self.database,
            upload,
            body,
            self.settings,
            catalog=self.catalog,
            new_id=uuid7,
            clock=loop.time,
            workbooks=self.workbooks,
        )
        if isinstance(accepted, Replay):
            return _replay(accepted, asked.echo)
        asked.exchange.items = accepted.items
        if upload.options.consistent:
            _say_promised(upload, accepted.job_id)
        self.notifier.notify_imports(upload.tenant_id, accepted.job_id)
        fields = asked.echo | {"Location": f"/v1/jobs/{accepted.job_id}", "Retry-After": str(accepted.retry_after)}
        return respond(accepted.body, 202, headers=fields | asked.preferences.applied(waited=False, parted=True))

    async def _hold(self, batch: ImportRequest, decided: Accepted207, until: float) -> bytes | Replay:
        """Wait for the effects, and put the answer that shows them in the place of the one committed.

        Nothing is lost if this never ends: the answer that was committed with the import remains.
        """
        body = decided.body
        if decided.to_notify:
            principal = Principal(batch.tenant_id, batch.key_id, SCOPES.scopes)
            # What was decided is told, also to who may not wait, or no longer.
            with contextlib.suppress(Unauthorized):
                await self.long_poll.hold(principal, decided.job_id, until)
        async with self.database.connection() as connection:
            if decided.to_notify:
                counts = await job_status_service.read_effects(connection, batch.tenant_id, decided.job_id)
                effects = {
                    name: outcomes_wire.overall(counts[name]) if name in counts else word
                    for name, word in decided.effects.items()
                }
                body = outcomes_wire.compose(
                    decided.job_id, decided.summary, effects, decided.shown, dry_run=batch.options.dry_run
                )
            if await queries.settle_answer(connection, batch.tenant_id, batch.route, batch.key, pack(body)):
                return body
        return Replay(207, decided.body)


def _say_promised(upload: ImportRequest, job_id: uuid.UUID) -> None:
    emit(
        SagaMoved(
            tenant_id=upload.tenant_id,
            workflow=consistency.WORKFLOW,
            subject=str(job_id),
            state=SagaState.RUNNING,
            began=True,
        )
    )


def _limit(settings: Settings, upload: ImportRequest) -> Limits:
    size, remedy = settings.max_file_bytes, ""
    if upload.form.family is Family.XLSX:
        size = min(size, settings.max_workbook_bytes, settings.body_memory_key - _staging_memory(settings) - _STEP)
        remedy = f"Save the sheet as CSV, which may have {settings.max_file_bytes}, and send that."
    if upload.options.atomic:
        size = min(size, settings.max_atomic_bytes)
        remedy = (
            "With atomic=true one transaction holds the locks of all items, hence this limit: send the body without "
            f"atomic=true (then it is {settings.max_file_bytes}), or in several requests."
        )
    return Limits(
        size=max(size, settings.max_sync_bytes),
        remedy=remedy or "Send the items in several requests, each with its own Idempotency-Key.",
        seconds=settings.body_timeout,
        inflation=settings.max_inflation,
        tick=settings.receive_lease / _TICKS,
    )


def _foresee(fields: Fields) -> int:
    """Bytes that a body will take, as far as its header says."""
    declared = fields.one("content-length") or ""
    return int(declared[:18]) if declared.isdecimal() else _STEP


def _staging_memory(settings: Settings) -> int:
    """Bytes in memory of a body that is stored while it arrives: the chunk that grows, and the one being packed."""
    return 2 * settings.import_chunk_bytes


async def _read_ahead(body: AsyncIterator[bytes], held: list[bytes], most: int, place: Place) -> bool:
    """Whether the body ends within `most` bytes; what was read of it goes to `held`."""
    size = 0
    async for piece in body:
        held.append(piece)
        size += len(piece)
        if size > place.size:
            place.hold(size + _STEP)
        if size > most:
            return False
    return True


async def _chain(
    held: list[bytes], body: AsyncIterator[bytes], place: Place, least: int, *, kept: bool
) -> AsyncIterator[bytes]:
    """What was read, and what is still to come; once that has begun, `least` bytes are in memory. `kept`: the body is
    kept in a file until its end, and the folder of that may be in memory, too."""
    size = 0
    held.reverse()
    while held:
        size += len(held[-1])
        yield held.pop()
        await asyncio.sleep(0)
    place.hold(least + size * kept)
    async for piece in body:
        size += len(piece)
        if kept and least + size > place.size:
            place.hold(least + size + _STEP)
        yield piece


def _answer(decided: Accepted207, body: bytes, echo: dict[str, str], preferences: Preferences) -> ASGIResponse:
    fields = echo | {"Location": f"/v1/jobs/{decided.job_id}"} | preferences.applied(waited=True)
    return respond(body, 207, headers=fields)


def _replay(replay: Replay, echo: dict[str, str]) -> ASGIResponse:
    job_id = msgspec.json.decode(replay.body, type=_Named).job_id
    fields = echo | {"Idempotency-Replayed": "true", "Location": f"/v1/jobs/{job_id}"}
    if replay.status == 202:
        fields["Retry-After"] = "1"
    return respond(replay.body, replay.status, headers=fields)
