"""What of the bodies that arrive one process holds at a time, shared out over tenants and their keys.

A body has a place and a number of bytes from before its first byte is awaited until its request is answered. Nobody
waits for either: whoever finds none is refused at once, while those who have one can finish.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import TracebackType
from typing import Final, Self

from app.errors import Overloaded, QuotaExceeded
from app.http.principal import Principal
from app.settings import PREFIX, Settings

_SOON: Final = 1.0
"""Seconds after which a place may be free: most bodies are there in less."""

_Key = tuple[int, str]


class Shares:
    """A quantity that tenants hold parts of.

    Beside its limit, a tenant never holds more than it leaves for all others: however many arrive, a tenant
    that holds nothing yet still gets something (as in Choudhury and Hahne's dynamic thresholds for shared buffers).
    """

    def __init__(self, settings: Settings, setting: str, what: str) -> None:
        """`setting`: has the limit of all; with `_tenant` after its name it has that of a tenant and, where
        keys have one too, with `_key` that of a key. `what`: of what, in words."""
        self._most: int = getattr(settings, setting)
        self._most_tenant: int = getattr(settings, f"{setting}_tenant")
        self._most_key: int | None = getattr(settings, f"{setting}_key", None)
        self._setting = f"{PREFIX}{setting.upper()}"
        self._what = what
        self.total = 0
        self._tenants: Counter[int] = Counter()
        self._keys: Counter[_Key] = Counter()

    def take(self, key: _Key, amount: int) -> None:
        """
        Raises:
            QuotaExceeded: the key or its tenant holds its limit.
            Overloaded: there is too little left for others.
        """
        tenant = key[0]
        of_tenant = self._tenants[tenant]
        if self._most_key is not None and self._keys[key] + amount > self._most_key:
            raise self._refuse("key", self._most_key)
        if of_tenant + amount > self._most_tenant:
            raise self._refuse("tenant", self._most_tenant)
        free = self._most - self.total
        if amount > free or (of_tenant and of_tenant + amount > free):
            raise Overloaded(retry_after=_SOON)
        self.total += amount
        self._keys[key] += amount
        self._tenants[tenant] += amount

    def give_back(self, key: _Key, amount: int) -> None:
        self.total -= amount
        for counter, name in ((self._keys, key), (self._tenants, key[0])):
            counter[name] -= amount  # type: ignore[index]
            if not counter[name]:  # type: ignore[index]
                del counter[name]

    @contextmanager
    def part(self, key: _Key) -> Iterator[None]:
        """One, as long as the block lasts; raises as `take`."""
        self.take(key, 1)
        try:
            yield
        finally:
            self.give_back(key, 1)

    def _refuse(self, whose: str, most: int) -> QuotaExceeded:
        return QuotaExceeded(
            f"This {whose} may have {most} {self._what} at a time, and has about as many; send this request again "
            f"after the time given, and fewer at a time. An operator may raise {self._setting}_{whose.upper()}.",
            retry_after=_SOON,
        )


class Place:
    """One body's part; to be left (`with`)."""

    def __init__(self, intake: "Intake", key: _Key) -> None:
        self._intake = intake
        self._key = key
        self.size = 0
        """Bytes that it holds for the body itself."""
        self._window = 0

    def hold(self, size: int) -> None:
        """Hold this many bytes for the body from now on, more or fewer than before.
        Raises `QuotaExceeded`, `Overloaded`: there are not as many more."""
        self._change(size - self.size)
        self.size = size

    def hold_window(self, size: int) -> None:
        """Hold this many bytes for inflating it, as long as it lasts; fewer than before change nothing.
        Raises `QuotaExceeded`, `Overloaded`: there are not as many more."""
        if size > self._window:
            self._change(size - self._window)
            self._window = size

    def _change(self, amount: int) -> None:
        if amount > 0:
            self._intake.bytes.take(self._key, amount)
        elif amount < 0:
            self._intake.bytes.give_back(self._key, -amount)

    def __enter__(self) -> Self:
        self._intake.requests.take(self._key, 1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._change(-self.size - self._window)
        self._intake.requests.give_back(self._key, 1)


class Intake:
    """The bodies of one process, and those who stay for longer."""

    def __init__(self, settings: Settings) -> None:
        self.requests = Shares(settings, "max_requests", "requests with a body in progress")
        self.bytes = Shares(settings, "body_memory", "bytes of bodies in progress")
        self._streams = Shares(settings, "max_streams", "event streams open")
        self._waits = Shares(settings, "max_waits", "requests waiting")

    @contextmanager
    def stream(self, principal: Principal) -> Iterator[None]:
        """An event stream as long as it is open. Raises `QuotaExceeded`, `Overloaded`: there are too many."""
        with self._streams.part((principal.tenant_id, principal.key_id)):
            yield

    @contextmanager
    def wait(self, principal: Principal) -> Iterator[bool]:
        """A request that waits (`Prefer: wait`); false: so many do already that it is answered at once."""
        with ExitStack() as stack:
            found = False
            with suppress(QuotaExceeded, Overloaded):
                stack.enter_context(self._waits.part((principal.tenant_id, principal.key_id)))
                found = True
            yield found

    def place(self, tenant_id: int, key_id: str) -> Place:
        """A place for a body of this key, not taken yet."""
        return Place(self, (tenant_id, key_id))
