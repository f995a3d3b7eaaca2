"""What one CRM's file in this folder provides; the front does the rest (faults, ledger, connections)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Literal, Protocol, TypeVar

import msgspec

from jobs.crm.sandbox.faults import (
    Chosen,
    Faults,
    Lock,
    Omit,
    RateLimit,
    Reject,
    RejectBatch,
    Status,
    Unauthorized,
)
from jobs.crm.sandbox.ledger import Call, Ledger
from jobs.crm.sandbox.records import Records

C = TypeVar("C", bound=Chosen)
Refusal = Unauthorized | RateLimit | Lock | Status


class Answer(msgspec.Struct, kw_only=True):
    """A whole HTTP answer."""

    status: int
    body: bytes
    headers: dict[str, str] = {}
    content_type: str = "application/json"
    cut: bool = False
    """Half of the body is sent, then the connection closes."""


class Visit(msgspec.Struct, kw_only=True):
    """One call as a handler sees it. Handlers do not await, so a call is done wholly or not at all."""

    call: Call
    portal: str
    path: Mapping[str, str]
    """The variable parts of the route."""
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    ledger: Ledger
    records: Records
    faults: Faults

    def rejected(self, key: str, email: str) -> Reject | None:
        return self._hit(Reject, key, email)

    def rejected_whole(self, items: Iterable[tuple[str, str]]) -> RejectBatch | None:
        """Whether one of these (key, e-mail) makes the call fail as a whole."""
        return next((hit for key, email in items if (hit := self._hit(RejectBatch, key, email))), None)

    def omitted(self, key: str, email: str) -> bool:
        return self._hit(Omit, key, email) is not None

    def _hit(self, cls: type[C], key: str, email: str) -> C | None:
        armed = self.faults.active(cls)
        if armed is None or not armed.fault.names(key, email):
            return None
        if not armed.strikes("read" if self.call.on == "read" else "write"):
            return None
        if cls.kind not in self.call.faults:
            self.call.faults = [*self.call.faults, cls.kind]
        return armed.fault


class Route(msgspec.Struct, frozen=True):
    """A method and path of the vendor's API, relative to the base URL."""

    method: str
    path: str
    on: Literal["write", "read"]
    handle: Callable[[Visit], Answer]


class Vendor(Protocol):
    """One kind of CRM on the wire."""

    routes: list[Route]

    def make_id(self, count: int) -> str:
        """The record id of the next new record."""
        ...

    def authenticate(self, headers: Mapping[str, str]) -> Answer | None:
        """The vendor's refusal of these credentials, if it refuses them."""
        ...

    def refuse(self, fault: Refusal) -> Answer:
        """The vendor's words for a call that is not done."""
        ...

    def not_found(self, path: str) -> Answer: ...
