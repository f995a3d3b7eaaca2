"""What really happened at the sandbox: a row for every effect and a row for every call.

The newest of them are in memory, so that a sandbox stays small under hours of load. With a path all are appended to
it as JSON lines and handed to the operating system before the call is answered, so neither a kill of the sandbox nor a
lost answer loses evidence; started again on the same file it knows every record, and goes on counting.
"""

import contextlib
import itertools
import os
from collections import deque
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

MOST_EFFECTS: Final = 200_000
MOST_CALLS: Final = 50_000
MOST_KEPT: Final = 5_000
"""Of each, the newest that are in memory."""
MOST_BYTES: Final = 100_000_000
"""Of the effects that are in memory together; the newest is, whatever its size."""


class Effect(msgspec.Struct, kw_only=True, gc=False, tag_field="row", tag="effect"):
    """One input that was applied; `properties` are all the record has afterwards."""

    seq: int = 0
    """1, 2, 3 …, without a gap, as the ledger books them."""
    at: str
    call: int = 0
    """0: by none."""
    request_id: str = ""
    portal: str
    object: str = ""
    """What kind of record, in the vendor's word (`contacts`, `Account`); empty in a row of an earlier release."""
    key_property: str
    key: str
    id: str
    """The CRM's own id of the record, among those of its object."""
    properties: dict[str, Any]
    changed: bool
    created: bool
    deleted: bool = False
    """The record was taken away."""
    by: str = "api"
    """`user`: a user of the CRM did it (`app.sandbox.control`), and no call did."""


class Kept(msgspec.Struct, kw_only=True, tag_field="row", tag="kept"):
    """The answer to a call with an `Idempotency-Key`, to be given again."""

    portal: str
    key: str
    digest: str
    """Of the call's method, path and body: the key belongs to these."""
    status: int
    body: str


class Call(msgspec.Struct, kw_only=True, tag_field="row", tag="call"):
    """One request to the CRM's own routes."""

    call: int = 0
    """1, 2, 3 …, in the order of arrival."""
    at: str = ""
    method: str
    path: str
    on: str
    """`write`, `read`, or `other` for a route that does not exist."""
    portal: str
    request_id: str
    status: int | None = None
    """What was answered, or would have been had the connection not been dropped."""
    n: int = 0
    """Inputs of the request."""
    faults: list[str] = []
    """The faults that struck, in order."""
    event_id: str = ""
    """Its `Idempotency-Key`, or its `X-Event-ID`."""
    replayed: bool = False
    """Nothing was done: the answer is the one that the same key was given before."""
    answered: bool = False
    """Whether the answer was handed to a connection that was still open."""
    seconds: float = 0.0
    traceparent: str = ""

    def hit(self, kind: str) -> None:
        if kind not in self.faults:
            self.faults.append(kind)


def timestamp() -> str:
    """Now, as HubSpot writes it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Ledger:
    """In memory, and on disk if a path is given."""

    def __init__(self, path: Path | None = None) -> None:
        self._effects: deque[tuple[str, bytes]] = deque()
        """Portal and JSON, which takes a quarter of the room."""
        self._bytes = 0
        self.effect_count = 0
        self.calls: deque[Call] = deque(maxlen=MOST_CALLS)
        self.call_count = 0
        self.kept: dict[tuple[str, str], Kept] = {}
        """By portal and key."""
        self.in_flight = 0
        self.max_concurrent = 0
        self._last_call = 0
        self._latest: dict[tuple[str, str, str], Effect] = {}
        """While a file is read: the last effect on each record."""
        self._path = path
        self._encoder = msgspec.json.Encoder()
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._load(path)
            # It holds what people were sent.
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            with contextlib.suppress(PermissionError):
                os.fchmod(handle, 0o600)  # one of an earlier release was open to all
            self._file = os.fdopen(handle, "ab", buffering=0)

    def begin(self, call: Call) -> Call:
        self._last_call += 1
        call.call, call.at = self._last_call, timestamp()
        self.calls.append(call)
        self.call_count += 1
        self.in_flight += 1
        self.max_concurrent = max(self.max_concurrent, self.in_flight)
        return call

    def apply(self, effects: list[Effect], kept: Kept | None = None) -> None:
        """Book what a call did, with the answer to keep for its key; on return it is out of this process's hands."""
        for effect in effects:
            effect.seq = self.effect_count + 1
            self._book(effect)
        if kept is None:
            self._append(effects)
        else:
            self._keep(kept)
            self._append([*effects, kept])

    def _book(self, effect: Effect) -> None:
        row = self._encoder.encode(effect)
        self._effects.append((effect.portal, row))
        self._bytes += len(row)
        while len(self._effects) > MOST_EFFECTS or (self._bytes > MOST_BYTES and len(self._effects) > 1):
            self._bytes -= len(self._effects.popleft()[1])
        self.effect_count += 1

    def _keep(self, kept: Kept) -> None:
        self.kept[kept.portal, kept.key] = kept
        if len(self.kept) > MOST_KEPT:
            del self.kept[next(iter(self.kept))]

    def effects(self, since: int = 0, portal: str | None = None) -> list[msgspec.Raw]:
        """The rows after number `since` that are in memory, as JSON."""
        first = self.effect_count - len(self._effects)
        rows = itertools.islice(self._effects, max(0, since - first), None)
        return [msgspec.Raw(row) for of, row in rows if portal in (None, of)]

    def settle(self, call: Call) -> None:
        """Book a call, just before its answer goes out."""
        self._append([call])

    def end(self) -> None:
        self.in_flight -= 1

    def clear(self) -> None:
        """Forget everything, on disk too."""
        self._effects.clear()
        self._bytes = 0
        self.calls.clear()
        self.kept = {}
        self.effect_count = self.call_count = self._last_call = 0
        self.max_concurrent = self.in_flight
        if self._path is not None:
            self._file.truncate(0)

    def close(self) -> None:
        if self._path is not None:
            self._file.close()

    def _append(self, rows: Sequence[Effect | Call | Kept]) -> None:
        if self._path is not None and rows:
            self._file.write(self._encoder.encode_lines(rows))

    def _load(self, path: Path) -> None:
        if not path.exists():
            return
        whole = 0
        decode = msgspec.json.Decoder(Effect | Call | Kept).decode
        with path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._know(decode(line))
                whole += len(line)
        os.truncate(path, whole)  # a kill in the middle of a write leaves half a line

    def _know(self, row: Effect | Call | Kept) -> None:
        if isinstance(row, Effect):
            self._book(row)
            key = row.portal, row.object, row.id
            self._latest.pop(key, None)
            self._latest[key] = row
            self._last_call = max(self._last_call, row.call)
        elif isinstance(row, Call):
            self.calls.append(row)
            self.call_count += 1
            self._last_call = max(self._last_call, row.call)
        else:
            self._keep(row)

    def latest(self) -> Iterator[Effect]:
        """The last effect on each record of the file, oldest first, to rebuild the records from; given once."""
        last, self._latest = self._latest, {}
        yield from last.values()
