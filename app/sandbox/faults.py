"""The misbehaviour that can be switched on while a sandbox runs, each kind at most once at a time.

Every fault may be bounded: `times` (how often it strikes), `seconds` (how long it stays), `probability` (of
striking, drawn from a generator with `seed`, so a run can be repeated) and `on` (`any` call, a `write` or
a `read`).
"""

import random
import re
import time
from typing import Annotated, Any, ClassVar, Final, Generic, Literal, TypeVar

import msgspec

Side = Literal["write", "read"]
Positive = Annotated[float, msgspec.Meta(gt=0)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    kind: ClassVar[str]
    """The class's name as in the control routes, e.g. `rate_limit`."""

    times: Annotated[int, msgspec.Meta(ge=1)] | None = None
    seconds: Positive | None = None
    probability: Annotated[float, msgspec.Meta(ge=0, le=1)] = 1.0
    seed: int = 0
    on: Literal["write", "read", "any"] = "any"

    def __init_subclass__(cls) -> None:
        cls.kind = re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()


class Down(Fault, frozen=True, kw_only=True):
    """The connection is accepted and then reset, before the request is read."""


class Refuse(Fault, frozen=True, kw_only=True):
    """Nobody listens on the port. The control routes are gone as well, so `seconds` is required."""

    def __post_init__(self) -> None:
        if self.seconds is None or self.times is not None or self.probability != 1 or self.on != "any":
            raise ValueError("refuse takes `seconds` and nothing else")


class Latency(Fault, frozen=True, kw_only=True):
    """The ordinary time a call takes: `latency` plus up to `jitter` seconds, before anything is done."""

    latency: NotNegative
    jitter: NotNegative = 0.0


class Slow(Fault, frozen=True, kw_only=True):
    """The answer is held for `latency` seconds `after` the work is done, or the work itself comes so late."""

    latency: NotNegative
    when: Literal["before", "after"] = "after"


class Unauthorized(Fault, frozen=True, kw_only=True):
    """The token is refused."""

    code: Literal[401, 403] = 401


class BrokenAccount(Fault, frozen=True, kw_only=True):
    """Calls of one account fail on the CRM's side; those of others do not."""

    account: str
    code: Annotated[int, msgspec.Meta(ge=500, le=599)] = 500


class RateLimit(Fault, frozen=True, kw_only=True, rename={"policy_name": "policyName"}):
    """429, or the vendor's like. HubSpot and Salesforce send no `Retry-After`; `retry_after` adds one."""

    policy_name: Literal["SECONDLY", "TEN_SECONDLY_ROLLING", "DAILY"] = "TEN_SECONDLY_ROLLING"
    retry_after: NotNegative | None = None
    said_as: Literal["Retry-After", "RateLimit", "X-RateLimit-Reset"] = "Retry-After"
    """The header field that has `retry_after`: in seconds, as structured field, or as a time."""
    code: Literal[429, 403] = 429
    """As the kind `http` answers."""


class Lock(Fault, frozen=True, kw_only=True):
    """423, or the vendor's word for records that somebody else holds."""


class Status(Fault, frozen=True, kw_only=True):
    """A status of choice; with `apply` the work is done all the same, as behind a gateway that timed out."""

    code: Annotated[int, msgspec.Meta(ge=300, le=599)] = 500
    apply: bool = False
    retry_after: NotNegative | None = None
    body: Literal["json", "html"] = "json"


class DropBefore(Fault, frozen=True, kw_only=True):
    """The request is read, nothing is done, and the connection closes without an answer."""

    on: Literal["write", "read", "any"] = "write"


class SaysNo(Fault, frozen=True, kw_only=True):
    """Nothing is done, and the answer is a 2xx all the same: its body says no, or that the call is queued."""

    mode: Literal["ok_false", "errors", "count", "task"] = "ok_false"
    on: Literal["write", "read", "any"] = "write"


class AcceptThenDrop(Fault, frozen=True, kw_only=True):
    """The work is done, and the connection closes without an answer."""

    on: Literal["write", "read", "any"] = "write"


class Chosen(Fault, frozen=True, kw_only=True):
    """Hits the items with one of `keys` or `emails`; without both, every item."""

    keys: frozenset[str] = frozenset()
    emails: frozenset[str] = frozenset()

    def names(self, key: str, email: str) -> bool:
        return key in self.keys or email in self.emails or not (self.keys or self.emails)


class Reject(Chosen, frozen=True, kw_only=True):
    """Chosen items fail on their own, the others are done."""

    category: str = "VALIDATION_ERROR"
    message: str = "Property values were not valid"
    passing: bool = False
    """For a reason that will pass, in the vendor's words, instead of `category`."""
    on: Literal["write", "read", "any"] = "write"


class RejectBatch(Chosen, frozen=True, kw_only=True):
    """400 for the whole call if one of its items is chosen, without a word about which: nothing is done."""

    message: str = "Property values were not valid"
    on: Literal["write", "read", "any"] = "write"


class DuplicateRule(Chosen, frozen=True, kw_only=True):
    """A rule of the account finds that chosen records look like others: it warns, or blocks."""

    action: Literal["warn", "block"] = "warn"
    on: Literal["write", "read", "any"] = "write"


class MissingFields(Fault, frozen=True, kw_only=True):
    """Fields with one of `names` do not exist over there, though the account had them or was to have them."""

    names: frozenset[str]


class Omit(Chosen, frozen=True, kw_only=True):
    """Chosen items are done, but the answer does not mention them."""


class Garbage(Fault, frozen=True, kw_only=True):
    """The work is done and the answer says so in its status, but its body cannot be used."""

    mode: Literal["truncated", "cut", "html", "empty", "shape", "deep", "huge"] = "truncated"


KINDS: Final[dict[str, type[Fault]]] = {
    cls.kind: cls for cls in (*Fault.__subclasses__(), *Chosen.__subclasses__()) if cls is not Chosen
}
F = TypeVar("F", bound=Fault)


class FaultError(ValueError):
    """The fault asked for does not exist, or its parameters do not fit."""


class Armed(Generic[F]):
    """A fault that is switched on, with what is left of its bounds."""

    def __init__(self, fault: F) -> None:
        self.fault = fault
        self.applied = 0
        self._random = random.Random(fault.seed)  # noqa: S311 - repeatable runs, not secrets
        self._until = None if fault.seconds is None else time.monotonic() + fault.seconds

    @property
    def over(self) -> bool:
        return self.seconds_left == 0 or self.left == 0

    @property
    def left(self) -> int | None:
        return None if self.fault.times is None else max(0, self.fault.times - self.applied)

    @property
    def seconds_left(self) -> float | None:
        return None if self._until is None else max(0.0, self._until - time.monotonic())

    def strikes(self, side: Side) -> bool:
        """Draw once, and count it if it strikes."""
        if self.over or self.fault.on not in ("any", side):
            return False
        if self.fault.probability < 1 and self._random.random() >= self.fault.probability:
            return False
        self.applied += 1
        return True

    def jitter(self, width: float) -> float:
        return self._random.uniform(0, width)


class Faults:
    def __init__(self) -> None:
        self._armed: dict[str, Armed[Any]] = {}

    def set(self, kind: str, parameters: object) -> Fault:
        """Switch a fault on, in place of one of its kind.

        Raises:
            FaultError: an unknown kind, or parameters that do not fit it.
        """
        fault = parse(kind, parameters)
        self._armed[kind] = Armed(fault)
        return fault

    def clear(self, kind: str | None = None) -> None:
        """Switch one kind off, or all."""
        if kind is None:
            self._armed.clear()
        else:
            self._armed.pop(kind, None)

    def active(self, cls: type[F]) -> Armed[F] | None:
        """The fault of a kind while its bounds last; nothing is counted."""
        armed = self._armed.get(cls.kind)
        return None if armed is None or armed.over else armed

    def strike(self, cls: type[F], side: Side) -> F | None:
        """The fault of a kind if it hits this call."""
        armed = self._armed.get(cls.kind)
        return armed.fault if armed is not None and armed.strikes(side) else None

    def show(self) -> dict[str, dict[str, Any]]:
        """What is on: parameters, how often each struck, and what is left of its bounds."""
        return {
            kind: {
                **msgspec.to_builtins(armed.fault),
                "applied": armed.applied,
                "left": armed.left,
                "seconds_left": armed.seconds_left,
            }
            for kind, armed in self._armed.items()
            if not armed.over
        }


def parse(kind: str, parameters: object) -> Fault:
    """A fault from its JSON parameters; `null` and `true` are none.

    Raises:
        FaultError: an unknown kind, or parameters that do not fit it.
    """
    if kind not in KINDS:
        raise FaultError(f"unknown fault {kind!r}; there are: {', '.join(KINDS)}")
    try:
        return msgspec.convert({} if parameters in (None, True) else parameters, KINDS[kind])
    except msgspec.ValidationError as error:
        raise FaultError(f"{kind}: {error}") from error
