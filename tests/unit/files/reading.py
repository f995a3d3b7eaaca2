"""A body that is there as a whole, read as the service reads it."""

from __future__ import annotations

from app.files.readers import Contents, Form, read_by_steps, read_quickly
from tests.types import NAMES
from tests.unit.files.json_oracle import TooManyItems


def read_pieces(body: bytes, form: Form, *, max_items: int) -> Contents:
    """`read_quickly`, or else `read_by_steps`, all at once.

    Raises:
        TooManyItems: more than `max_items` items, or very many lines.
    """
    contents = read_quickly(body, form, max_items=max_items)
    steps = read_by_steps(body, form, NAMES, max_items=max_items)
    while contents is None:
        try:
            next(steps)
        except StopIteration as end:
            contents = end.value
            break
    if contents is None:
        raise TooManyItems(f"the body has more than {max_items} rows, or too many lines")
    return contents
