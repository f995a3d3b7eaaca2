"""Opaque positions in a list: a small versioned JSON in base64url. They say where, never who may read."""

import base64
import binascii
from collections.abc import Mapping
from typing import Annotated, Any, Final, Generic, TypeVar
from urllib.parse import parse_qsl, urlencode

import msgspec

from app.http.errors import CursorInvalid

VERSION: Final = 2

NextCursor = Annotated[str | None, msgspec.Meta(description="Opaque; null on the last page.")]
"""What a page says of the one after it."""
Index = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
Number = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]

P = TypeVar("P")


class Cursor(Generic[P]):
    """The cursors of one list: those of another one are refused."""

    def __init__(self, name: str, position: Any) -> None:
        """`position`: its type, as msgspec checks it."""
        self._name = name
        self._decode = msgspec.json.Decoder(tuple[int, str, position]).decode

    def encode(self, position: P | None) -> str | None:
        """None: there is no next page."""
        if position is None:
            return None
        text = msgspec.json.encode((VERSION, self._name, position))
        return base64.urlsafe_b64encode(text).decode().rstrip("=")

    def decode(self, text: str | None) -> P | None:
        """None: the first page. Raises `CursorInvalid`: broken, or of another list."""
        if text is None:
            return None
        try:
            raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
            version, name, position = self._decode(raw)
        except (ValueError, binascii.Error, RecursionError) as error:
            raise CursorInvalid() from error
        if (version, name) != (VERSION, self._name):
            raise CursorInvalid()
        found: P = position
        return found


def link_next(scope: Mapping[str, Any], cursor: str | None) -> dict[str, str]:
    """Where the next page is (RFC 8288), which is all that NDJSON and CSV can say of it."""
    if cursor is None:
        return {}
    query = dict(parse_qsl(scope["query_string"].decode("ascii"), keep_blank_values=True)) | {"cursor": cursor}
    return {"Link": f'<{scope["path"]}?{urlencode(query)}>; rel="next"'}
