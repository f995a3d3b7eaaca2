"""`/v1/dead-letters`: items that are no longer tried, for an operator to resolve."""

from typing import Annotated, Any, Final

import msgspec
from uuid_utils.compat import uuid7

from app.auth.authorization import ADMIN, READING
from app.dead_letters import service, views
from app.dead_letters.queries import Filter
from app.dead_letters.replay import NothingTaken
from app.dead_letters.selection import MOST as MOST_TAKEN
from app.dead_letters.selection import Actor, Wanted
from app.dead_letters.shapes import (
    Choice,
    ClusterList,
    DeadLetterList,
    DeadLetterQuery,
    DropRequest,
    PreviewAnswer,
    ReplayAnswer,
    ReplayRequest,
    SettleRequest,
    check_filter,
    describe,
)
from app.dead_letters.undo_replay import MOST as MOST_CONFLICTS
from app.errors import Invalid
from app.http.cursors import Cursor, Number
from app.http.operation import Answer, Reply, operation
from app.http.parameters import number_path
from app.http.principal import Principal
from app.http.request_context import Exchange
from app.kit.notifier import Notifier
from app.kit.postgres.database import Connection, Database
from app.resource_types.catalog import Catalog
from app.settings import Settings
from app.vocabulary.states import DeadLetterKind

MADE: Final = ("Location", "RetryAfter")
"""Header fields of an answer that made a job."""
_CURSOR: Final = Cursor[int]("dead-letters", Number)

_DEAD_LETTER_ID: Final = number_path("The dead letter.", 4711, below=2**63, missing="There is no such dead letter.")


@operation(
    "GET",
    "/v1/dead-letters",
    tag="dead letters",
    access=READING,
    answers=Answer(
        "A page of dead letters. A filtered one may hold fewer than `limit`, even none, and still have a next one."
    ),
    errors=(404,),
)
async def list_dead_letters(query: DeadLetterQuery, principal: Principal, connection: Connection) -> DeadLetterList:
    """Dead letters, newest first.

    The open ones, unless `resolution` says otherwise. The kind `delivery` is an item that is no longer tried at a
    destination, the kind `undo` a record that an undo left as it is, because somebody changed it since.
    """
    found, position = await views.list_dead_letters(
        connection,
        principal.tenant_id,
        check_filter(query),
        resolution=query.resolution,
        before=_CURSOR.decode(query.cursor),
        limit=query.limit,
    )
    return DeadLetterList(found, _CURSOR.encode(position))


@operation(
    "GET",
    "/v1/dead-letters/clusters",
    tag="dead letters",
    access=READING,
    answers=Answer("The reasons, with their frequency."),
    errors=(404,),
)
async def cluster_dead_letters(query: Filter, principal: Principal, connection: Connection) -> ClusterList:
    """Open dead letters by destination and code.

    Those of undos have no destination. The most frequent reason first, each with sample ids.
    """
    found = await views.list_clusters(connection, principal.tenant_id, check_filter(query))
    return ClusterList(found, sum(cluster.count for cluster in found))


@operation(
    "GET", "/v1/dead-letters/{dead_letter_id}", tag="dead letters", access=READING, answers=Answer("The dead letter.")
)
async def read_dead_letter(
    dead_letter_id: Annotated[int, _DEAD_LETTER_ID], principal: Principal, catalog: Catalog, connection: Connection
) -> views.DeadLetterDetail:
    """One dead letter with everything needed to decide.

    Its reason, the calls with times and answers, the payload of a replay, its history, and the possible resolutions.
    """
    return await views.read_dead_letter(connection, principal.tenant_id, dead_letter_id, catalog)


def _describe_replay(settings: Settings) -> str:
    return (
        "By id, by a filter, or all of them. The records are sent in their current version, once for each "
        f"destination, {settings.replay_rate:g} items per second there unless `rate` says otherwise. A dead letter is "
        "claimed once, however often it is requested; if it fails again there is a new dead letter in the same chain. "
        f"One job claims {MOST_TAKEN} dead letters at most; `remaining` is the number left.\n\n"
        "Dead letters of the kind `undo` are replayed by id, or with `kind` in the filter. A job restores the records "
        "after all, as long as each is at the version that its dead letter names in `changed_by`. A record that was "
        "changed again is left as it is, and a new dead letter of the same chain names that change. "
        f"A job takes at most {MOST_CONFLICTS} of them, all of one undone job."
    )


@operation(
    "POST",
    "/v1/dead-letters/replay",
    tag="dead letters",
    access=ADMIN,
    description=_describe_replay,
    answers=(
        Answer("The job that sends them.", 202, ReplayAnswer, headers=MADE),
        Answer(
            "With `preview`: what would be claimed; nothing was changed. Otherwise no dead letter of the "
            "selection is open, so there is nothing to send; `jobs` are those that replayed them before.",
            200,
            PreviewAnswer | NothingTaken,
        ),
    ),
    errors=(404,),
    keyed=True,
)
async def replay_dead_letters(
    body: ReplayRequest,
    principal: Principal,
    exchange: Exchange,
    settings: Settings,
    database: Database,
    catalog: Catalog,
    notifier: Notifier,
) -> Reply[Any]:
    """Replay dead letters."""
    wanted = _select(body)
    if body.preview:
        return Reply(await service.preview(database, principal.tenant_id, wanted))
    taken = await service.replay(
        database, actor_of(principal, exchange), wanted, settings, rate=body.rate, catalog=catalog, new_id=uuid7
    )
    if isinstance(taken, NothingTaken):
        return Reply(taken)
    notifier.notify(principal.tenant_id, taken.to_notify, reason=str(taken.job_id))
    answer = ReplayAnswer(**describe(taken), jobs=taken.jobs)
    return Reply(answer, 202, made_headers(answer.status_url))


@operation(
    "POST",
    "/v1/dead-letters/drop",
    tag="dead letters",
    access=ADMIN,
    description=lambda settings: (
        "Their history remains, with the reason and who gave it. "
        f"At most {MOST_TAKEN} at a time; `remaining` is the number left."
    ),
    answers=Answer("They are dropped."),
    errors=(404,),
    keyed=True,
)
async def drop_dead_letters(
    body: DropRequest, principal: Principal, exchange: Exchange, database: Database
) -> service.DecisionAnswer:
    """Drop dead letters."""
    reason = service.check_reason(body.reason)
    return await service.drop(database, actor_of(principal, exchange), _select(body), reason)


@operation(
    "POST",
    "/v1/dead-letters/settle",
    tag="dead letters",
    access=ADMIN,
    answers=Answer("They are settled."),
    errors=(404, 409),
    keyed=True,
)
async def settle_dead_letters(
    body: SettleRequest, principal: Principal, exchange: Exchange, database: Database
) -> service.DecisionAnswer:
    """Settle dead letters that have arrived.

    Only dead letters with the code `OUTCOME_UNKNOWN`: the destination is then known to hold these versions.
    """
    reason = service.check_reason(body.reason)
    return await service.settle(database, actor_of(principal, exchange), body.ids, reason)


def actor_of(principal: Principal, exchange: Exchange) -> Actor:
    return Actor(principal.tenant_id, principal.key_id, exchange.request_id, exchange.trace)


def made_headers(status_url: str) -> dict[str, str]:
    """The header fields of an answer that made a job."""
    return {"Location": status_url, "Retry-After": "1"}


def _select(asked: Choice) -> Wanted:
    """Raises `Invalid`: it does not say which dead letters, or says it twice."""
    if asked.ids is not None:
        if asked.filter is not None or asked.all:
            raise Invalid("Send ids or filter, not both.")
        return sorted(set(asked.ids))
    wanted = check_filter(asked.filter or Filter())
    if wanted == Filter() and not asked.all:
        raise Invalid('Send ids, a filter with a condition, or "all": true for every open dead letter.')
    # Whoever sends everything again does not mean to overwrite what others have changed.
    return msgspec.structs.replace(wanted, kind=wanted.kind or DeadLetterKind.DELIVERY)
