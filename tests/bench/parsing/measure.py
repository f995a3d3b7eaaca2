"""The work that one body makes for the service's loop, from its bytes to items, each accepted or rejected."""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Generator

import msgspec

from app.files.csv_columns import HeaderError
from app.files.csv_mapping import names_of
from app.files.json_document import MalformedBody
from app.files.readers import Form, read_by_steps, read_quickly
from app.imports.batch.items import Items
from app.resources.decoding import Piece, reader_of
from app.resources.types.contacts import CONTACTS

_BATCH = 1_000
_MAX_ITEM = 65_536
_UNLIMITED = 1_000_000_000


class Cost(msgspec.Struct, frozen=True):
    """CPU of this process, in seconds: in all, and for the longest stretch that nothing else can interrupt.

    `rows`: pieces that came out, sound or not.
    """

    cpu: float
    longest: float
    rows: int = 0
    size: int = 0
    """Bytes, where `cpu` is that of one of them."""


def work(body: bytes, form: Form) -> Generator[None, None, int]:
    """Read the body as a request does, however many items it has; others have their turn wherever this yields.

    Returned is the number of pieces that came out.
    """
    pieces: list[Piece] = []
    with contextlib.suppress(MalformedBody, HeaderError):
        contents = read_quickly(body, form, max_items=_UNLIMITED)
        if contents is None:
            yield
            contents = yield from read_by_steps(body, form, names_of(CONTACTS), max_items=_UNLIMITED)
        pieces = contents.pieces
    yield
    for start in range(0, len(pieces), _BATCH):
        items = Items(CONTACTS, pieces[start : start + _BATCH], last_wins=False, max_item_bytes=_MAX_ITEM)
        for _ in items.parts():
            yield
        yield
    return len(pieces)


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
    steps = work(body, form)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            ended = time.process_time()
            return Cost(ended - began, max(longest, ended - before), end.value)
        now = time.process_time()
        longest = max(longest, now - before)
        before = now


def forget() -> None:
    """Empty what remembers earlier texts."""
    reader_of.cache_clear()
