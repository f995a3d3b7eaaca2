"""What the delivery pipeline asks of a CRM, and the closed set of answers it understands.

An adapter is one file: it turns records into the vendor's request and the vendor's answer into exactly one
`Outcome` a record. It decides nothing about when to try again; `app.kit.retry` does.
"""

from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum
from typing import Any, Protocol, TypedDict, Unpack

import aiohttp
import msgspec

from app.deliveries.before_images import Adoption, FieldBefore
from app.destinations.credentials import Credentials
from app.destinations.testing.rules import Step
from app.resources.declaration import Resource
from app.tracing.context import TraceContext
from app.vocabulary.states import EffectState, ErrorCode


class SentRecord(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a destination has to know of a record now, and no more."""

    record_id: str
    version: int
    fields: dict[str, Any] = msgspec.field(default_factory=dict)
    """`None` is a field that was cleared, and that the destination should have empty; one that nobody named, or whose
    clearing the destination has already, is absent, and no call contains it."""
    attributes: dict[str, Any] = msgspec.field(default_factory=dict)
    """The same by key."""
    deleted: bool = False
    """A tombstone: the destination should not have it (any more)."""
    remote_id: str | None = None
    """The CRM's own id of the record, as far as it is known. Without one it may be looked for (`match_on`)."""
    adopted: bool = False
    """It is to be written to the record `remote_id`, which was found there and does not have our key yet."""
    released: bool = False
    """A tombstone whose record, `remote_id`, was adopted: it gets `restored` back, and loses our key. It is pushed, not
    archived."""
    restored: Sequence[FieldBefore] = ()
    """What fields there are to hold again, beside `fields` and `attributes`."""


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """What became of one record in one call: `OK`, `RETRY`, `FAILED` or `UNKNOWN`, with the reason."""

    record_id: str
    state: EffectState
    code: ErrorCode | None = None
    detail: str = ""
    remote_id: str | None = None
    """Empty: the record of the id that was known is not there any more."""
    created: bool | None = None
    """Whether this call made the record there; `False`: it was there before; `None`: the answer does not say."""


class Health(StrEnum):
    """What a call says about the two circuits it went through."""

    WELL = "well"
    """The CRM answered sensibly (a rejected item, a 4xx and a 429 are sensible answers)."""
    CRM_FAULT = "crm_fault"
    """5xx, timeout, refused or reset connection: counts against the CRM for everybody."""
    CONNECTION_FAULT = "connection_fault"
    """401, 403, or an address or setting that cannot work: counts against this tenant's connection alone."""
    SETUP_FAULT = "setup_fault"
    """The account lacks what is sent there (a property, a column, the id field), or reading back is refused: the same
    answer would meet every record. One such answer holds the destination until a probe finds it mended; no attempt is
    spent, and no record is refused for it."""


class Pause(msgspec.Struct, frozen=True):
    """No call of this destination before `seconds` have passed: the CRM asked for silence, or it may not be called."""

    seconds: float
    detail: str
    code: ErrorCode = ErrorCode.DESTINATION_RATE_LIMIT
    """What items that wait for it show."""


class CallResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a call met as a whole."""

    health: Health
    pause: Pause | None = None
    seconds: float = 0.0
    """How long the call took, for the slow-call rate."""
    status: int | None = None
    """The HTTP status that was answered; `None`: there was no answer."""
    timed_out: bool = False
    """Its answer did not come in time, or not all of it."""
    detail: str = ""
    """In words, for people; empty where each outcome has its own detail. With a `SETUP_FAULT` the vendor's own words
    and the remedy."""


class Reply(CallResult, frozen=True, kw_only=True):
    """The answer to `push`: one outcome a record, in the order asked.

    `pause` set means that nothing was done for the records whose outcome is `RETRY`, and no attempt is spent: with
    `DESTINATION_RATE_LIMIT` after a 429 and with `DESTINATION_UNAVAILABLE` after a 423 or a 503 that names its
    `Retry-After`. Mostly these are all; an adapter that makes several calls may have settled others before.
    """

    outcomes: list[Outcome]
    rejected_whole: bool = False
    """Several records were refused together, nothing of them was done, and the answer does not say which is
    guilty: every outcome is `RETRY` with `DESTINATION_REJECTED`. Halves of the batch show it; one record alone
    that is refused is `FAILED`."""
    vouched: bool = True
    """Whether the answer speaks of every record that is `OK`; if not, it only says nothing against them."""


class Seen(StrEnum):
    """What a read-back found for one record."""

    MATCHES = "matches"
    """It is there with every property that a push of the record would set or clear; others do not matter."""
    DIFFERS = "differs"
    ABSENT = "absent"


class Difference(msgspec.Struct, frozen=True, gc=False):
    """A field that holds something else there than a push of the record would write."""

    name: str
    """As the CRM calls it; within nested ones joined by dots."""
    here: Any
    there: Any
    """`None`: it is empty, or not there at all."""


class ReadBack(CallResult, frozen=True, kw_only=True):
    """The answer to `read_back`; `seen` is `None` when the read itself failed (then nothing is known).

    A record that is missing in `seen` was not mentioned by the CRM: nothing is known of it.
    """

    seen: dict[str, Seen] | None
    remote_ids: dict[str, str] = {}
    differences: dict[str, list[Difference]] = {}
    """Of records that differ, as far as the CRM shows their fields."""


class Listing(CallResult, frozen=True, kw_only=True):
    """The answer to `list_keys`: a page of the records there that have our key."""

    keys: dict[str, str] | None
    """Our key → its id there; `None`: the read failed, and nothing is known."""
    after: str | None = None
    """Where the next page begins; `None`: this was the last one."""


class Headers(msgspec.Struct, frozen=True):
    """What a call says about itself to the CRM, beside its contents."""

    request_id: str
    """Of the request that it all began with: `X-Request-ID`."""
    event_id: str
    """Of this call's contents: `X-Event-ID`, and the `Idempotency-Key` where the CRM knows one. The same records in
    the same versions have the same id, however often they are sent."""
    trace: TraceContext | None = None
    """What the call belongs to: its `traceparent` continues that."""


class BulkState(StrEnum):
    """Of a job that writes many records."""

    OPEN = "open"
    """It has its records, and writes nothing before it is started."""
    RUNNING = "running"
    ENDED = "ended"
    """It writes nothing more: who was not written then was not."""
    GONE = "gone"
    """The CRM does not know it any more."""


class BulkJob(CallResult, frozen=True, kw_only=True):
    """What a call about a job showed."""

    task: str | None
    """Its id."""
    state: BulkState | None
    """`None`: the call failed, and nothing is known."""
    outcomes: dict[str, Outcome] = {}
    """Of the records that were written, by their ids."""


class BulkWriter(Protocol):
    """Writes many records by a job of the CRM's own (`Crm.bulk`)."""

    least: int | None
    """Records that are worth a job; `None`: none is begun any more."""

    def takes(self, record: SentRecord) -> bool:
        """Whether a job does the same with it as a push."""
        ...

    async def create(self, records: list[SentRecord], headers: Headers) -> BulkJob: ...

    async def start(self, task: str, headers: Headers) -> BulkJob: ...

    async def look(self, task: str, headers: Headers) -> BulkJob: ...

    async def results(self, task: str, records: list[SentRecord], headers: Headers) -> BulkJob:
        """Of one that has ended."""
        ...

    async def abort(self, task: str, headers: Headers) -> BulkJob: ...


WriteTest = Callable[[Headers], Awaitable[list[Step]]]
"""Writes something that is no record, removes it, and says what was seen."""


class Timeouts(msgspec.Struct, frozen=True):
    """Seconds; `total` covers connecting, sending and reading the whole answer."""

    connect: float = 3.0
    total: float = 10.0


class Authorization(msgspec.Struct, frozen=True, kw_only=True):
    """What one call shows."""

    token: str = ""
    """For the header that the destination wants it in."""
    fields: dict[str, str] = {}
    """Header fields, where there is no token."""
    base_url: str | None = None
    """Where the account is, if whoever issued the token says that."""


class NoToken(msgspec.Struct, frozen=True, kw_only=True):
    """There is none to call with."""

    detail: str
    """In words, for people."""
    remedy: str = ""
    """It will not be issued before somebody does this; empty: it could not be asked for, or not now."""


class Authorizer(Protocol):
    """Has what a destination is called with, and renews it."""

    @property
    def credentials(self) -> Credentials:
        """Themselves, for whoever speaks something else than HTTP."""
        ...

    @property
    def secrets(self) -> Sequence[str]:
        """What nobody may see of it."""
        ...

    async def authorize(self) -> Authorization | NoToken:
        """For the next call."""
        ...

    async def renew(self, used: Authorization) -> Authorization | NoToken | None:
        """After a 401 for this; `None`: it is what it is."""
        ...


class Access(TypedDict):
    """What a connection is made of."""

    session: aiohttp.ClientSession
    base_url: str
    authorizer: Authorizer
    timeouts: Timeouts


Keep = Callable[[Sequence[Adoption]], Awaitable[frozenset[str]]]
"""Keeps records that were found at the CRM, with what they hold, before they are written to; returns the ids of those
that were kept. The others must not be written now: somebody else adopts them, or nothing could be kept."""


async def keep_nothing(adoptions: Sequence[Adoption]) -> frozenset[str]:
    """Where no undo will ask what was there before."""
    return frozenset(adoption.record_id for adoption in adoptions)


class Crm(Protocol):
    """One tenant's connection to one CRM, for records of one type. Methods never raise for anything that the network or
    the CRM does."""

    batch_size: int
    """Most records a call may carry."""
    reads_back: bool
    """Whether `read_back` can settle a lost answer; if not, an operator must, unless `repeatable`."""
    repeatable: bool
    """Whether the same call may be sent again: the CRM does none twice that has one `Idempotency-Key`, or a repetition
    changes nothing there."""

    appends: bool
    """Whether it keeps every version that it is sent, with its number: a record may be sent again in any company, one
    that arrives late harms nothing, and all that is there is ours."""
    archives: bool
    """Whether `archive` can take a record away at all."""
    lists: bool
    """Whether `list_keys` can say what is there."""
    updates_apart: bool
    """Whether records whose id there is known, and those whose id is not, are pushed in calls of their own."""
    learns: bool
    """Whether calls teach it what later ones go by. If so, it serves its destination as long as a worker knows that
    one; if not, each slice of time has a fresh one, which knows of no pause that an operator has ended since."""

    @property
    def bulk(self) -> BulkWriter | None:
        """How it writes many records at a time, if it can."""
        ...

    @property
    def write_test(self) -> WriteTest | None:
        """How it shows that it takes records where one that is written cannot be taken away again, if it can."""
        ...

    async def check(self, headers: Headers) -> list[Step]:
        """Make one harmless call or a few, for which the token must be good, and say what was seen: whether the CRM is
        there, lets us in, and is set up as it must be. Nothing is written."""
        ...

    async def push(self, records: list[SentRecord], headers: Headers, keep: Keep = keep_nothing) -> Reply:
        """Write what the records name, keyed by their business key. None of them is `deleted`, unless it is `released`.

        Where the options say so (`match_on`), those without a remote id are looked for first, in one read. One that is
        found without our key is given to `keep`, and written to by its remote id.
        """
        ...

    async def archive(self, records: list[SentRecord], headers: Headers) -> Reply:
        """Take these records away in one call, as far as the CRM lets one: all of them are `deleted`
        and have a `remote_id` if the CRM `reads_back`. One that is not there is `OK`."""
        ...

    async def read_back(self, records: list[SentRecord], headers: Headers, *, by_fields: bool = False) -> ReadBack:
        """Read these records by key (never by search: it lags) and compare; only if `reads_back`.

        For a `deleted` record only whether it is there matters: `ABSENT`, or `DIFFERS` with its remote id. `by_fields`:
        a version that the CRM keeps of ours does not decide alone, because people change fields and not the version.
        """
        ...

    async def list_keys(self, after: str | None, headers: Headers) -> Listing:
        """A page of the records there that have our key, in any order that stays the same; only if `lists`."""
        ...


class CrmFactory(Protocol):
    """How an adapter is registered in `jobs.crm.ADAPTERS`."""

    def __call__(self, *, resource: Resource, options: dict[str, Any], **access: Unpack[Access]) -> Crm:
        """Raise `ValueError`, in words for the operator, where credentials, address or options cannot be used."""
        ...
