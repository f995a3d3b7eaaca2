"""The bytes of a request body → the bytes of each item.

Items are cut apart before they are read, so that one that cannot be read harms no other.
"""

import re
from typing import Final

import msgspec

from app.resources import json_scanner
from app.resources.rules import quote

BOM: Final = b"\xef\xbb\xbf"
_START: Final = re.compile(rb'[ \t\r\n]*+\{[ \t\r\n]*+"items"[ \t\r\n]*+:[ \t\r\n]*+(?=\[)')
BOUNDARY: Final = re.compile(rb"[}\]]\s*+,\s*+[{\[]")
SMALL: Final = 256
_COMMAS_PER_ITEM: Final = 64
"""A body with more commas than this for each allowed item is counted before it is cut: a million one-byte
items would take a hundred bytes of memory each."""

_split = msgspec.json.Decoder(list[msgspec.Raw]).decode
_skip = msgspec.json.Decoder(msgspec.Raw).decode


class MalformedBody(ValueError):
    """The body as a whole cannot be cut into items, so nothing of it was done.

    `detail` names the fault and the remedy, `offset` the byte of the body (from 0) where it was noticed.
    """

    def __init__(self, detail: str, offset: int = 0) -> None:
        super().__init__(detail)
        self.detail = detail
        self.offset = offset


def split_quickly(body: bytes, *, max_items: int) -> list[bytes | msgspec.Raw] | None:
    """`split_json` of a body that is sound and has neither more items nor a remarkable number of commas; else None."""
    start = _START.match(body, len(BOM) if body.startswith(BOM) else 0)
    if start is None or body.count(b",") > _COMMAS_PER_ITEM * max_items:
        return None
    items = _split_valid(body, start.end())
    return None if items is None or len(items) > max_items else items


def _split_valid(body: bytes, start: int) -> list[bytes | msgspec.Raw] | None:
    # Decoding the array alone, and not the object around it, shows a second "items" and any other member.
    end = len(body.rstrip(b" \t\r\n")) - 1
    if body[end : end + 1] != b"}":
        return None
    try:
        return _split(memoryview(body)[start:end])  # type: ignore[return-value]  # a Raw is one of the two
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
        return None


def uncertain(broken: json_scanner.StructureError) -> MalformedBody:
    return MalformedBody(
        f"not valid JSON at byte {broken.offset}: {broken.detail}; where items begin and end is not "
        "certain, so none was taken; correct the body and send it again",
        broken.offset,
    )


def unfinished(at: int) -> MalformedBody:
    return MalformedBody("after the array of items the closing '}' was expected; is the body cut off?", at)


def followed(at: int) -> MalformedBody:
    return MalformedBody(f"something follows the end of the JSON object at byte {at}; remove it", at)


def no_object(head: bytes, found: bytes, at: int) -> MalformedBody:
    """`head` are the first 4 bytes of the body, `found` the one at `at`, if there is one."""
    if not found:
        detail = 'the body is empty; send {"items": [...]}'
    elif found == b"[":
        detail = 'the body is an array; wrap it as {"items": [...]}'
    elif head[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\x00" in head:
        detail = "the body is UTF-16 or UTF-32; JSON must be sent as UTF-8"
    else:
        detail = f'not a JSON object at byte {at}; send {{"items": [...]}}'
    return MalformedBody(detail, at)


def no_member(found: bytes, at: int, *, seen: bool) -> MalformedBody:
    """`seen`: there was one before."""
    if found == b"}" and not seen:
        return MalformedBody('"items" is missing; send {"items": [...]}', at)
    return MalformedBody(f"a member name in double quotes and a colon were expected at byte {at}", at)


def check_name(member: bytes, at: int, *, seen: bool) -> None:
    """
    Raises:
        MalformedBody: it is not the name that is allowed here.
    """
    try:
        name = msgspec.json.decode(member, type=str)
    except ValueError:
        name = member.decode("utf-8", "replace").strip('"')
    if name != "items":
        raise MalformedBody(
            f'unknown member {quote(name)} at byte {at}; the body has the one member "items": send {{"items": [...]}}',
            at,
        )
    if seen:
        raise MalformedBody(f'"items" appears in the body twice, again at byte {at}; send one array', at)


def no_array(at: int) -> MalformedBody:
    return MalformedBody(f'"items" must be an array, at byte {at}', at)


def check_certain(item: bytes, start: int) -> None:
    """Refuse an item that may be several.

    Two stray quotes or brackets in two items make one span of everything between them, and the cut then
    swallows the items in the middle. Such a span is not valid JSON, and the boundary of two items is inside a
    string or among brackets that do not match.

    Raises:
        StructureError: it may be.
    """
    if len(item) <= SMALL and BOUNDARY.search(item) is None:
        return
    try:
        _skip(item)
    except (ValueError, RecursionError):
        if BOUNDARY.search(item) is None:
            return
        # Joined, strings keep their quotes, so what is found lies within one of them.
        if BOUNDARY.search(b"".join(json_scanner.STRINGS.findall(item))) or not json_scanner.brackets_match(item):
            raise run_together(start) from None


def run_together(start: int) -> json_scanner.StructureError:
    return json_scanner.StructureError(
        start, "the item that begins here seems to run into the next; a quote or bracket is wrong"
    )
