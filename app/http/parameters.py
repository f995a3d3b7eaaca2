"""Parameters that operations of several features take."""

import re
import uuid
from functools import partial
from typing import Annotated, Final

import msgspec

from app.errors import NotFound
from app.http import headers
from app.http.headers import Preferences
from app.http.operation import Call, Header, Path
from app.settings import Settings

MOST: Final = 1_000


class Page(msgspec.Struct, frozen=True, kw_only=True):
    limit: Annotated[int, msgspec.Meta(ge=1, le=MOST)] = 100
    """Most entries of one page."""
    cursor: str | None = None
    """`next_cursor` of the page before; without it, the first page."""


def parse_uuid(text: str, *, missing: str) -> uuid.UUID:
    """Raises `NotFound`: nothing has such an id; it is `missing`."""
    try:
        parsed = uuid.UUID(text)
    except ValueError:
        raise NotFound(missing) from None
    if str(parsed) != text.lower():
        raise NotFound(missing)
    return parsed


def uuid_path(description: str, example: str, *, missing: str) -> Path:
    """An id that is a UUID; what is none is not found: there it is `missing`."""
    schema = {"type": "string", "format": "uuid"}
    return Path(description=description, schema=schema, example=example, parse=partial(parse_uuid, missing=missing))


def number_path(description: str, example: int, *, below: int, missing: str) -> Path:
    """An id that is a number; what is none, or not `below` this, is not found: there it is `missing`."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"[1-9][0-9]{0,18}", text) or int(text) >= below:
            raise NotFound(missing)
        return int(text)

    schema = {"type": "integer", "minimum": 1, "maximum": below - 1}
    return Path(description=description, schema=schema, example=example, parse=parse)


TypeName = Annotated[
    str,
    Path(
        description="The type of record.",
        schema={"type": "string", "pattern": "^[a-z][a-z0-9_-]*$"},
        example="contacts",
    ),
]
_NO_JOB: Final = "There is no such job."
parse_job_id: Final = partial(parse_uuid, missing=_NO_JOB)
JobId = Annotated[uuid.UUID, uuid_path("The job.", "01992e3c-7a10-7c3e-8f4e-2b1d5c6a7f80", missing=_NO_JOB)]


def read_preferences(call: Call) -> Preferences:
    return headers.read_preferences(call.fields, max_wait=call.resources[Settings].max_wait)


def describe_wait(settings: Settings) -> str:
    return (
        "`wait=N` delays the answer until all effects are settled, or for N seconds (at most "
        f"{settings.max_wait:g}); `return=minimal` lists only items that are not `ok`. RFC 7240."
    )


Prefer = Annotated[Preferences, Header(name="Prefer", description=describe_wait, read=read_preferences)]
