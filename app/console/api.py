"""`/console`: the files of the console, and its one page for every view.

They are read once, when the process starts, and compressed then; their contents are their ETag.
"""

import gzip
import hashlib
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import PurePosixPath
from typing import Any, Final

import msgspec
from litestar import Request, get
from litestar.response.base import ASGIResponse

from app.errors import NotFound
from app.http.dependencies import STATE_KEY, Resources
from app.http.operation import respond
from app.settings import Settings

PATH: Final = "/console"
PAGE: Final = "index.html"
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
    "trusted-types lit-html"
)
_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
_LEAST: Final = 500
"""Bytes that are worth compressing."""


class Asset(msgspec.Struct, frozen=True):
    """One file."""

    content: bytes
    compressed: bytes | None
    etag: str
    media_type: str


def _read(folder: Traversable, at: PurePosixPath) -> dict[str, Asset]:
    found: dict[str, Asset] = {}
    for each in folder.iterdir():
        place = at / each.name
        if each.is_dir():
            found |= _read(each, place)
        elif place.suffix in _TYPES:
            content = each.read_bytes()
            compressed = gzip.compress(content, 9, mtime=0) if len(content) >= _LEAST else None
            etag = f'"{hashlib.sha256(content).hexdigest()[:20]}"'
            found[str(place)] = Asset(content, compressed, etag, _TYPES[place.suffix])
    return found


ASSETS: Final = _read(files(__package__) / "assets", PurePosixPath())
"""By their paths."""
_FOLDERS: Final = {PurePosixPath(path).parts[0] for path in ASSETS}
"""A record may be called like a file, and its view is elsewhere."""


@get([PATH, PATH + "/{path:path}"], include_in_schema=False, status_code=200)
async def serve(request: Request[Any, Any, Any]) -> ASGIResponse:
    """A file, or the page, which has a view for any other path.

    Raises:
        NotFound: there is no such file, or no console (TRANCHE_CONSOLE).
    """
    resources: Resources = request.app.state[STATE_KEY]
    if not resources[Settings].console:
        raise NotFound("The console is turned off (TRANCHE_CONSOLE).")
    path = request.scope["path"].removeprefix(PATH).strip("/")
    asset = ASSETS.get(path or PAGE)
    if asset is None:
        at = PurePosixPath(path)
        if at.suffix in _TYPES and (len(at.parts) == 1 or at.parts[0] in _FOLDERS):
            raise NotFound("The console has no such file.")
        asset = ASSETS[PAGE]
    fields = {name: value for name, value in request.scope["headers"] if name in (b"if-none-match", b"accept-encoding")}
    headers = {
        "ETag": asset.etag,
        "Cache-Control": "no-cache",
        "Content-Security-Policy": POLICY,
        "Cross-Origin-Opener-Policy": "same-origin",
        "Vary": "Accept-Encoding",
    }
    if asset.etag.encode() in fields.get(b"if-none-match", b""):
        return respond(b"", 304, headers=headers, media_type=asset.media_type)
    if asset.compressed is not None and b"gzip" in fields.get(b"accept-encoding", b""):
        return respond(asset.compressed, headers={**headers, "Content-Encoding": "gzip"}, media_type=asset.media_type)
    return respond(asset.content, headers=headers, media_type=asset.media_type)
