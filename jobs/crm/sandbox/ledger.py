"""What really happened at the sandbox: a row for every effect and a row for every call.

With a path both are appended to it as JSON lines and handed to the operating system before the call is
answered, so neither a kill of the sandbox nor a lost answer loses evidence; started again on the same file it
knows them all.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec


class Effect(msgspec.Struct, kw_only=True, gc=False, tag_field="row", tag="effect"):
    """One input that was applied; `properties` are all the record has afterwards."""

    seq: int
    """1, 2, 3 …, without a gap."""
    at: str
    call: int
    request_id: str
    portal: str
    key_property: str
    key: str
    id: str
    """The CRM's own id of the record."""
    properties: dict[str, Any]
    changed: bool
    created: bool
    deleted: bool = False
    """The record was taken away."""
    by: str = "api"
    """`user`: somebody did it by hand there (`jobs.crm.sandbox.users`), and no call did."""


class Kept(msgspec.Struct, kw_only=True, tag_field="row", tag="kept"):
    """The answer to a call with an `Idempotency-Key`, to be given again."""

    portal: str
    key: str
    digest: str
    """Of the call's method, path and body: the key stands for these."""
    status: int
    body: str


class Call(msgspec.Struct, kw_only=True, tag_field="row", tag="call"):
    """One request to the CRM's own routes."""

    call: int
    """1, 2, 3 …, in the order of arrival."""
    at: str
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


def timestamp() -> str:
    """Now, as HubSpot writes it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Ledger:
    """In memory, and on disk if a path is given."""

    def __init__(self, path: Path | None = None) -> None:
        self.effects: list[Effect] = []
        self.calls: list[Call] = []
        self.kept: dict[tuple[str, str], Kept] = {}
        """By portal and key."""
        self.in_flight = 0
        self.max_concurrent = 0
        self._last_call = 0
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

    def begin(
        self, *, method: str, path: str, on: str, portal: str, request_id: str, event_id: str = ""
    ) -> Call:
        """A call has arrived."""
        self._last_call += 1
        call = Call(
            call=self._last_call,
            at=timestamp(),
            method=method,
            path=path,
            on=on,
            portal=portal,
            request_id=request_id,
            event_id=event_id,
        )
        self.calls.append(call)
        self.in_flight += 1
        self.max_concurrent = max(self.max_concurrent, self.in_flight)
        return call

    def apply(self, effects: list[Effect], kept: Kept | None = None) -> None:
        """Book what a call did, with the answer to keep for its key; on return it is out of this process's hands."""
        self.effects += effects
        if kept is None:
            self._append(effects)
        else:
            self.kept[kept.portal, kept.key] = kept
            self._append([*effects, kept])

    def settle(self, call: Call) -> None:
        """Book a call, just before its answer goes out."""
        self._append([call])

    def end(self) -> None:
        """A call is over."""
        self.in_flight -= 1

    @property
    def next_seq(self) -> int:
        return len(self.effects) + 1

    def clear(self) -> None:
        """Forget everything, on disk too."""
        self.effects = []
        self.calls = []
        self.kept = {}
        self._last_call = 0
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
        self._last_call = max((call.call for call in self.calls), default=0)
        self._last_call = max([self._last_call, *(effect.call for effect in self.effects[-1:])])

    def _know(self, row: Effect | Call | Kept) -> None:
        if isinstance(row, Effect):
            self.effects.append(row)
        elif isinstance(row, Call):
            self.calls.append(row)
        else:
            self.kept[row.portal, row.key] = row

    def latest(self) -> Iterator[Effect]:
        """The last effect on each record, oldest first: enough to rebuild the records."""
        last = {(effect.portal, effect.id): effect for effect in self.effects}
        yield from last.values()
