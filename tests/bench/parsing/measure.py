"""The work that one body makes for the service's loop, from its bytes to items, each accepted or rejected."""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Iterator

import msgspec

from app.domain import rows, rules
from app.domain.envelope import MalformedBody
from app.domain.files.columns import HeaderError
from app.domain.files.pieces import Form, read_by_steps, read_quickly
from app.domain.items import Items
from app.domain.rows import Piece

_BATCH = 1_000
_MAX_ITEM = 65_536
_UNLIMITED = 1_000_000_000


class Cost(msgspec.Struct, frozen=True):
    """CPU of this process, in seconds: in all, and for the longest stretch that nothing else can interrupt."""

    cpu: float
    longest: float


def work(body: bytes, form: Form) -> Iterator[None]:
    """Read the body as a request does, however many items it has; others have their turn wherever this yields."""
    pieces: list[Piece] = []
    with contextlib.suppress(MalformedBody, HeaderError):
        contents = read_quickly(body, form, max_items=_UNLIMITED)
        if contents is None:
            yield
            contents = yield from read_by_steps(body, form, max_items=_UNLIMITED)
        pieces = contents.pieces
    yield
    for start in range(0, len(pieces), _BATCH):
        items = Items(pieces[start : start + _BATCH], last_wins=False, max_item_bytes=_MAX_ITEM)
        for _ in items.parts():
            yield
        yield


def measure(body: bytes, form: Form) -> Cost:
    forget()
    gc.disable()  # what a collection takes depends on all that the process has
    try:
        return _measure(body, form)
    finally:
        gc.enable()


def _measure(body: bytes, form: Form) -> Cost:
    longest = 0.0
    began = before = time.process_time()
    for _ in work(body, form):
        now = time.process_time()
        longest = max(longest, now - before)
        before = now
    ended = time.process_time()
    return Cost(ended - began, max(longest, ended - before))


def forget() -> None:
    """Empty what remembers earlier texts."""
    for cached in (rules.suggest_field, rows._examine_again):
        cached.cache_clear()
