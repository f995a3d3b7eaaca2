"""What one CRM's file in this folder provides; the front does the rest (faults, ledger, connections)."""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, Final, Literal, TypeVar

import msgspec

from app.sandbox.faults import (
    Chosen,
    DuplicateRule,
    Faults,
    Lock,
    MissingFields,
    Omit,
    RateLimit,
    Reject,
    RejectBatch,
    Status,
    Unauthorized,
)
from app.sandbox.ledger import Call, Effect, Kept, Ledger, timestamp
from app.sandbox.records import Objects, Record, Records, effect_of

C = TypeVar("C", bound=Chosen)
ANY: Final = "*"
"""Declared, it means every name."""
Refusal = Unauthorized | RateLimit | Lock | Status
BAD_TOKENS: Final = (None, "", "bad-token")
"""No account knows these; any other token is good."""


class Answer(msgspec.Struct, kw_only=True):
    status: int
    body: bytes
    headers: dict[str, str] = {}
    content_type: str = "application/json"
    cut: bool = False
    """Half of the body is sent, then the connection closes."""


class RefusedError(Exception):
    """A call is refused as a whole, in the vendor's words."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer


class Schema:
    """The fields that an account has: the vendor's own, and those that were declared, as its owner does in the vendor's
    settings. `ANY` declares every name that the vendor would let one give a field. What is declared as `NAME` every
    object has, and what is declared as `OBJECT.NAME` that object alone."""

    def __init__(self, own: Callable[[str], AbstractSet[str]], declared: Iterable[str] = ()) -> None:
        self.own = own
        """The vendor's own fields of an object."""
        self.declared = frozenset(declared)
        self._declared: dict[str, frozenset[str]] = {}
        """By object."""

    def has(self, name: str, of: str) -> bool:
        own = self.own(of)
        return name in own or ANY in own or not self.declared_for(of).isdisjoint((name, ANY))

    def declared_for(self, of: str) -> frozenset[str]:
        """The names that were declared for an object, without that of the object."""
        if of not in self._declared:
            mine = (name.removeprefix(f"{of}.") for name in self.declared)
            self._declared[of] = frozenset(name for name in mine if "." not in name)
        return self._declared[of]

    def is_declared(self, name: str, of: str) -> bool:
        """Whether it is a field of the account's own making."""
        return name not in self.own(of) and self.has(name, of)


class Visit(msgspec.Struct, kw_only=True):
    """One call as a handler sees it. Handlers do not await, so a call is done wholly or not at all."""

    call: Call
    portal: str
    object: str
    """The one in its path, or the vendor's default."""
    path: Mapping[str, str]
    """The variable parts of the route."""
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    ledger: Ledger
    objects: Objects
    faults: Faults
    schema: Schema
    locked: bool = False
    """Somebody else holds the records of this call (`Vendor.locks_calls` is false)."""

    at: str = msgspec.field(default_factory=timestamp)
    effects: list[Effect] = []
    """What the call did, to be booked when it is done."""
    kept: Kept | None = None
    """The answer to keep for its key."""

    @property
    def records(self) -> Records:
        return self.objects.of(self.object)

    def book(self, record: Record, *, changed: bool = True, created: bool = False, deleted: bool = False) -> None:
        call = self.call
        done = effect_of(record, self.at, changed=changed, created=created, deleted=deleted)
        self.effects.append(msgspec.structs.replace(done, call=call.call, request_id=call.request_id))

    def missing_fields(self, names: Iterable[str], of: str | None = None) -> list[str]:
        """Those of these fields that an object does not have, in their order; without `of`, the object of the call."""
        of = self.object if of is None else of
        armed = self.faults.active(MissingFields)
        away = frozenset() if armed is None else armed.fault.names
        missing = [name for name in names if name in away or not self.schema.has(name, of)]
        if any(name in away for name in missing):
            self.call.hit(MissingFields.kind)
        return missing

    def rejected(self, key: str, email: str) -> Reject | None:
        return self._hit(Reject, key, email)

    def rejected_whole(self, items: Iterable[tuple[str, str]]) -> RejectBatch | None:
        """Whether one of these (key, e-mail) makes the call fail as a whole."""
        return next((hit for key, email in items if (hit := self._hit(RejectBatch, key, email))), None)

    def looks_doubled(self, key: str, email: str) -> DuplicateRule | None:
        """The rule of the account that is against one more such record."""
        return self._hit(DuplicateRule, key, email)

    def omitted(self, key: str, email: str) -> bool:
        return self._hit(Omit, key, email) is not None

    def _hit(self, cls: type[C], key: str, email: str) -> C | None:
        armed = self.faults.active(cls)
        if armed is None or not armed.fault.names(key, email):
            return None
        if not armed.strikes("read" if self.call.on == "read" else "write"):
            return None
        self.call.hit(cls.kind)
        return armed.fault


class Route(msgspec.Struct, frozen=True):
    """A method and path of the vendor's API, relative to the base URL."""

    method: str
    path: str
    on: Literal["write", "read"]
    handle: Callable[[Visit], Answer]


class Vendor(ABC):
    routes: list[Route]
    options: Mapping[str, Any] = {}
    """Options of a destination that is to be synced to this stand-in."""
    locks_calls = True
    """Whether a lock refuses the whole call; if not, `Visit.locked` informs the handler."""
    default_object = "contacts"
    """What a call is about where nothing names an object."""
    token_path = "/oauth/token"  # noqa: S105 - an address
    """Where tokens are issued (`app.sandbox.token_issuer`); likewise what follows."""
    authorize_path = "/oauth/authorize"
    says_instance = False
    """An answer with a token says where the account is."""
    key_field: str | None = None
    """The field of the account's own making that holds our business key by default."""

    @abstractmethod
    def own_fields(self, of: str) -> AbstractSet[str]:
        """The fields that this object has in every account; none: there is no such object."""

    @abstractmethod
    def make_id(self, count: int, of: str) -> str:
        """The record id of the next new record of an object, after `count` others."""

    @abstractmethod
    def not_found(self, path: str) -> Answer: ...

    @abstractmethod
    def refusal(self, fault: Refusal) -> Answer:
        """The vendor's words for a call that is not done."""

    def token(self, headers: Mapping[str, str]) -> str | None:
        """The token of `Authorization: Bearer …` (RFC 6750); `None` without one."""
        scheme, _, token = headers.get("Authorization", "").partition(" ")
        return token.strip() if scheme.lower() == "bearer" else None

    def authenticate(self, headers: Mapping[str, str]) -> Answer | None:
        """The vendor's refusal of these credentials, if it refuses them."""
        return self.refuse(Unauthorized()) if self.token(headers) in BAD_TOKENS else None

    def refuse(self, fault: Refusal) -> Answer:
        """`refusal`, or the page of a gateway; with `Retry-After` if the fault has one."""
        if isinstance(fault, Status) and fault.body == "html":
            page = f"<html><body><h1>{fault.code}</h1></body></html>".encode()
            answer = Answer(status=fault.code, body=page, content_type="text/html")
        else:
            answer = self.refusal(fault)
        if isinstance(fault, RateLimit | Status) and fault.retry_after is not None:
            answer.headers |= _wait_fields(fault.retry_after, getattr(fault, "said_as", "Retry-After"))
        return answer


def _wait_fields(seconds: float, field: str) -> dict[str, str]:
    """The header fields that ask for so many seconds."""
    if field == "RateLimit":  # draft-ietf-httpapi-ratelimit-headers-10
        return {field: f'"default";r=0;t={math.ceil(seconds)}'}
    if field == "X-RateLimit-Reset":
        return {field: str(math.ceil(time.time() + seconds)), "X-RateLimit-Remaining": "0"}
    return {field: f"{seconds:g}"}
