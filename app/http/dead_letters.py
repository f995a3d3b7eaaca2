"""`/v1/dead-letters`: what Tranche gave up on, and what a human decides about it."""

from __future__ import annotations

import re
import uuid
from datetime import datetime
from typing import Annotated, Any, Final

import msgspec
from litestar import Request, get, post
from litestar.response.base import ASGIResponse
from uuid_utils.compat import uuid7

from app import admin, letter_views, letters
from app.domain.outcomes import EffectState, ErrorCode, JobKind, JobState, Resolution
from app.errors import Invalid, NotFound
from app.http import cursors, headers
from app.http.cursors import NextCursor
from app.http.exchange import exchange_of
from app.http.headers import Fields
from app.http.json_bodies import read_json
from app.http.services import Services, authorize, respond, services_of
from app.letter_choice import MOST as MOST_TAKEN
from app.letter_choice import MOST_IDS, Actor, Filter, Selection, Skipped
from app.resending import Taken

PAGE: Final = 100
MOST: Final = 1_000
RESOLUTIONS: Final = ("open", *Resolution, "any")
_READ: Final = frozenset({"read", "admin"})
_ADMIN: Final = frozenset({"admin"})
_REMEDY: Final = f"Name at most {MOST_IDS} letters, or use a filter."
_LIST: Final = "dead-letters"
_ID: Final = re.compile(r"[1-9][0-9]{0,18}")
_FILTERS: Final = ("destination", "error_code", "state", "job_id", "contact_id")

_encode: Final = msgspec.json.Encoder().encode

LetterId = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
Reason = Annotated[str, msgspec.Meta(min_length=1, max_length=1_000)]


class _Choice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One of `ids`, `filter` and `all`."""

    ids: Annotated[list[LetterId], msgspec.Meta(min_length=1, max_length=MOST_IDS)] | None = None
    filter: Filter | None = None
    all: bool = False
    """Every open letter: instead of a condition."""


class ReplayRequest(_Choice, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Letters to be sent again."""

    preview: bool = False
    """Tell what would be taken, and change nothing."""
    rate: Annotated[float, msgspec.Meta(ge=1, le=1_000_000)] | None = None
    """Items a second that become due at a destination; null: the setting `replay_rate`."""


class DropRequest(_Choice, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Letters that are not worth sending."""

    reason: Reason


class SettleRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Letters in doubt whose contacts have arrived, as a human has seen."""

    ids: Annotated[list[LetterId], msgspec.Meta(min_length=1, max_length=MOST_IDS)]
    reason: Reason


class LetterList(msgspec.Struct):
    """A page of dead letters, newest first. A filtered page may hold fewer than `limit` and still have a next one."""

    dead_letters: list[letter_views.DeadLetter]
    next_cursor: NextCursor


class ClusterList(msgspec.Struct):
    """Open letters by destination and code, the most frequent first."""

    clusters: list[letter_views.Cluster]
    total: int


class PreviewAnswer(msgspec.Struct):
    """What a replay would take now. One job takes `most` at a time."""

    would_take: int
    most: int
    clusters: list[letter_views.Cluster]
    skipped: list[Skipped]


class AttemptAnswer(msgspec.Struct, kw_only=True):
    """The job that sends again what failed."""

    job_id: uuid.UUID
    kind: JobKind
    state: JobState
    root_job_id: uuid.UUID
    taken: int
    """Dead letters that this request took; 0: an attempt that is under way has them, or an undo goes on."""
    items: int
    """Of the job: one for each contact."""
    due: int
    """Items that waited for their next attempt, and wait no more."""
    remaining: int
    """Open letters that are left, because one job takes so many at a time: ask again."""
    skipped: list[Skipped]
    status_url: str
    items_url: str
    events_url: str
    cancel_url: str
    effects: dict[str, EffectState]


class ReplayAnswer(AttemptAnswer, kw_only=True):
    """The job that sends the letters again."""

    jobs: list[uuid.UUID]
    """Jobs that have letters of this selection: earlier ones too, where letters were named that they had taken."""


class NothingTaken(msgspec.Struct, kw_only=True):
    """No letter of the selection is open: nothing was changed, and `jobs` have had those that were replayed before."""

    job_id: None = None
    taken: int = 0
    remaining: int = 0
    skipped: list[Skipped]
    jobs: list[uuid.UUID]


class DecisionAnswer(msgspec.Struct):
    """Letters that came to their end; `remaining` are open and left for the next request."""

    decided: int
    remaining: int
    skipped: list[Skipped]


@get("/v1/dead-letters")
async def list_letters(request: Request[Any, Any, Any]) -> ASGIResponse:
    services, principal, _ = await _begin(request, _READ)
    query = headers.read_query(request.scope, (*_FILTERS, "resolution", "limit", "cursor"))
    limit = headers.read_limit(query, default=PAGE, most=MOST)
    resolution = headers.read_choice(query, "resolution", RESOLUTIONS, "open")
    before = cursors.decode_number(query["cursor"], _LIST) if "cursor" in query else None
    async with services.database.connection() as connection:
        page = await letter_views.list_letters(
            connection,
            principal.tenant_id,
            _read_filter(query),
            resolution=resolution,
            before=before,
            limit=limit,
        )
    cursor = None if page.position is None else cursors.encode_number(page.position, _LIST)
    return respond(
        _encode(LetterList(page.letters, cursor)), headers=cursors.link_next(request.scope, query, cursor)
    )


@get("/v1/dead-letters/clusters")
async def list_clusters(request: Request[Any, Any, Any]) -> ASGIResponse:
    services, principal, _ = await _begin(request, _READ)
    wanted = _read_filter(headers.read_query(request.scope, _FILTERS))
    async with services.database.connection() as connection:
        found = await letter_views.list_clusters(connection, principal.tenant_id, wanted)
    return respond(_encode(ClusterList(found, sum(cluster.count for cluster in found))))


@get("/v1/dead-letters/{letter_id:str}")
async def read_letter(request: Request[Any, Any, Any]) -> ASGIResponse:
    services, principal, _ = await _begin(request, _READ)
    headers.read_query(request.scope, ())
    text = request.path_params["letter_id"]
    if not _ID.fullmatch(text) or int(text) >= 2**63:
        raise NotFound("There is no such dead letter.")
    async with services.database.connection() as connection:
        found = await letter_views.read_letter(connection, principal.tenant_id, int(text))
    return respond(_encode(found))


@post("/v1/dead-letters/replay", status_code=202)
async def replay_letters(request: Request[Any, Any, Any]) -> ASGIResponse:
    services, principal, _ = await _begin(request, _ADMIN)
    headers.read_query(request.scope, ())
    asked = await read_json(request, services, ReplayRequest, remedy=_REMEDY)
    selection = _select(asked)
    if asked.preview:
        return await _preview(services, principal.tenant_id, selection)
    taken = await letters.replay(
        services.database,
        actor_of(request, principal),
        selection,
        services.settings,
        rate=asked.rate,
        new_id=uuid7,
    )
    if taken.job_id is None:
        return respond(_encode(NothingTaken(skipped=taken.skipped, jobs=taken.jobs)))
    services.waker.wake(principal.tenant_id, taken.owed, reason=str(taken.job_id))
    answer = ReplayAnswer(**describe(taken), jobs=taken.jobs)
    return respond(_encode(answer), 202, headers=tell(answer.status_url))


@post("/v1/dead-letters/drop", status_code=200)
async def drop_letters(request: Request[Any, Any, Any]) -> ASGIResponse:
    services, principal, _ = await _begin(request, _ADMIN)
    headers.read_query(request.scope, ())
    asked = await read_json(request, services, DropRequest, remedy=_REMEDY)
    reason = letters.check_reason(asked.reason)
    decided = await letters.drop(services.database, actor_of(request, principal), _select(asked), reason)
    return respond(_encode(DecisionAnswer(decided.decided, decided.remaining, decided.skipped)))


@post("/v1/dead-letters/settle", status_code=200)
async def settle_letters(request: Request[Any, Any, Any]) -> ASGIResponse:
    services, principal, _ = await _begin(request, _ADMIN)
    headers.read_query(request.scope, ())
    asked = await read_json(request, services, SettleRequest, remedy=_REMEDY)
    reason = letters.check_reason(asked.reason)
    decided = await letters.settle(services.database, actor_of(request, principal), asked.ids, reason)
    return respond(_encode(DecisionAnswer(decided.decided, decided.remaining, decided.skipped)))


async def _preview(services: Services, tenant_id: int, selection: Selection) -> ASGIResponse:
    found, skipped, places = await letters.preview(services.database, tenant_id, selection)
    clusters = [letter_views.describe_cluster(row, places.name(row.destination_id)) for row in found]
    total = sum(cluster.count for cluster in clusters)
    return respond(_encode(PreviewAnswer(total, MOST_TAKEN, clusters, skipped)))


def actor_of(request: Request[Any, Any, Any], principal: admin.Principal) -> Actor:
    return Actor(principal.tenant_id, principal.key_id, exchange_of(request.scope).request_id)


def describe(taken: Taken) -> dict[str, Any]:
    """The fields of an `AttemptAnswer`."""
    job_id = taken.job_id
    return {
        "job_id": job_id,
        "kind": taken.kind,
        "state": taken.state,
        "root_job_id": taken.root_job_id,
        "taken": taken.taken,
        "items": taken.items,
        "due": taken.due,
        "remaining": taken.remaining,
        "skipped": taken.skipped,
        "status_url": f"/v1/jobs/{job_id}",
        "items_url": f"/v1/jobs/{job_id}/items",
        "events_url": f"/v1/jobs/{job_id}/events",
        "cancel_url": f"/v1/jobs/{job_id}/cancel",
        "effects": taken.effects,
    }


def tell(status_url: str) -> dict[str, str]:
    """The header fields of a job that was made."""
    return {"Location": status_url, "Retry-After": "1"}


async def _begin(
    request: Request[Any, Any, Any], scopes: frozenset[str]
) -> tuple[Services, admin.Principal, Fields]:
    services = services_of(request)
    fields = Fields(request.scope["headers"])
    principal = await authorize(request, fields, services, scopes)
    headers.choose_type(fields)
    return services, principal, fields


def _read_filter(query: dict[str, str]) -> Filter:
    return _check(_convert({name: value for name, value in query.items() if name in _FILTERS}))


def _convert(asked: dict[str, str]) -> Filter:
    try:
        return msgspec.convert(asked, Filter)
    except msgspec.ValidationError as error:
        name = str(error).rpartition("$.")[2].strip("`")
        words: list[str] = {"error_code": [*ErrorCode], "state": ["failed", "dead"]}.get(name, [])
        remedy = f"one of: {', '.join(words)}" if words else "a job's id"
        raise Invalid(f"{name} cannot be used; it is {remedy}.") from error


def _check(wanted: Filter) -> Filter:
    """Text that no stored text can equal is no fault of PostgreSQL's."""
    for name in ("destination", "contact_id"):
        if "\0" in (getattr(wanted, name) or ""):
            raise Invalid(f"{name} holds a NUL character.")
    before: datetime | None = wanted.created_before
    if before is not None and (before.tzinfo is None or not 1 < before.year < 9999):
        raise Invalid("created_before needs an offset and a year of ours, as in 2026-01-15T09:30:00Z.")
    return wanted


def _select(asked: _Choice) -> Selection:
    """
    Raises:
        Invalid: it does not say which letters, or says it twice.
    """
    if asked.ids is not None:
        if asked.filter is not None or asked.all:
            raise Invalid("Send ids or filter, not both.")
        return Selection(ids=sorted(set(asked.ids)))
    wanted = _check(asked.filter or Filter())
    if wanted == Filter() and not asked.all:
        raise Invalid('Send ids, a filter with a condition, or "all": true for every open letter.')
    return Selection(wanted=wanted)
