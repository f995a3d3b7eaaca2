"""JSON bodies cut as a whole, in the plainest way: what `app.files.json_reader` must find, piece by piece."""

from __future__ import annotations

import msgspec

from app.files import json_document
from app.files.json_document import MalformedBody
from app.resources import json_scanner


class TooManyItems(MalformedBody):
    """The body holds more items than one request may carry."""


def split_json(body: bytes, *, max_items: int = 10_000) -> list[bytes | msgspec.Raw]:
    """The items of `{"items": […]}`, each as its JSON bytes, in order; nothing inside an item is judged.

    A byte order mark is tolerated. An item that is not valid JSON is still cut out whole, as long as its
    quotes and brackets balance.

    Raises:
        MalformedBody: no such object, another member beside `items`, or the places where items begin and end
            are not certain.
        TooManyItems: more than `max_items` items.
    """
    items = json_document.split_quickly(body, max_items=max_items)
    if items is not None:
        return items
    return _split_lexically(body, len(json_document.BOM) if body.startswith(json_document.BOM) else 0, max_items)


def _split_lexically(body: bytes, shift: int, max_items: int) -> list[bytes | msgspec.Raw]:
    at = json_scanner.skip_space(body, shift)
    if body[at : at + 1] != b"{":
        raise json_document.no_object(body[:4], body[at : at + 1], at)
    items: list[bytes | msgspec.Raw] | None = None
    try:
        at = json_scanner.skip_space(body, at + 1)
        while body[at : at + 1] != b"}" or items is None:
            value = _expect_items(body, at, seen=items is not None)
            spans, at = json_scanner.split_values(body, value + 1, closer="]", limit=max_items)
            items = [_certain(body, *span) for span in spans]
            at = json_scanner.skip_space(body, at + 1)
            if body[at : at + 1] == b",":
                at = json_scanner.skip_space(body, at + 1)
                _expect_items(body, at, seen=True)
            elif body[at : at + 1] != b"}":
                raise json_document.unfinished(at)
    except json_scanner.LimitError:
        raise TooManyItems(f"the body has more than {max_items} items", at) from None
    except json_scanner.StructureError as broken:
        raise json_document.uncertain(broken) from None
    at = json_scanner.skip_space(body, at + 1)
    if at != len(body):
        raise json_document.followed(at)
    return items


def _expect_items(body: bytes, at: int, *, seen: bool) -> int:
    """Offset of the '[' of the member "items" that must be at `at`."""
    member = json_scanner.MEMBER_NAME.match(body, at)
    if member is None:
        raise json_document.no_member(body[at : at + 1], at, seen=seen)
    json_document.check_name(member[1], at, seen=seen)
    if body[member.end() : member.end() + 1] != b"[":
        raise json_document.no_array(member.end())
    return member.end()


def _certain(body: bytes, start: int, end: int) -> bytes:
    item = body[start:end]
    json_document.check_certain(item, start)
    return item
