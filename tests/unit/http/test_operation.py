"""What a declaration means is settled when the module is imported, and a wrong one stops it there."""

from __future__ import annotations

import uuid
from typing import Annotated, Any

import msgspec
import pytest

from app.auth.authorization import ADMIN
from app.http.operation import EVERYBODY, Answer, Operation, Path, operation

_ID = Path(description="The thing.", schema={"type": "string"}, example="a", parse=uuid.UUID)


class Thing(msgspec.Struct):
    name: str


class Wrong(msgspec.Struct):
    numbers: dict[str, int] = {}


def _declare(function: Any, path: str = "/things", **more: Any) -> Operation:
    return operation("POST", path, tag="things", access=ADMIN, answers=Answer("It."), **more)(function)


def test_everything_follows_from_the_signature() -> None:
    async def change_thing(thing_id: Annotated[uuid.UUID, _ID], body: Thing | None) -> Thing:
        """Change a thing.

        It is another one then.
        """
        return body or Thing("")

    found = _declare(change_thing, "/things/{thing_id}", errors=(409,))
    assert (found.id, found.summary, found.description) == ("changeThing", "Change a thing", "It is another one then.")
    assert found.errors == (400, 401, 403, 404, 406, 408, 409, 413, 415, 429, 503)
    assert (found.body, found.body_required, found.answers[0].type) == (Thing, False, Thing)


def test_what_is_open_to_everybody_needs_no_key() -> None:
    async def read_thing() -> Thing:
        """A thing."""
        return Thing("")

    found = operation("GET", "/things", tag="things", access=EVERYBODY, answers=Answer("It."))(read_thing)
    assert (found.errors, found.body, found.access.security) == ((400, 406), None, ())


def test_a_path_and_its_handler_name_the_same_parts() -> None:
    async def read_thing(other_id: Annotated[uuid.UUID, _ID]) -> Thing:
        """A thing."""
        return Thing("")

    with pytest.raises(AssertionError, match="does not name"):
        _declare(read_thing, "/things/{thing_id}")


def test_a_query_holds_nothing_that_no_text_can_be() -> None:
    async def list_things(query: Wrong) -> Thing:
        """Things."""
        return Thing("")

    with pytest.raises(TypeError, match="a query parameter cannot be"):
        _declare(list_things)
