"""What exists once in a process. The composition root puts it together; a handler says what it needs by its type."""

from typing import Any, Final, TypeVar

from litestar import Request

T = TypeVar("T")

STATE_KEY: Final = "resources"


class Resources:
    """Objects by their type, or one that theirs is derived from."""

    def __init__(self, *resources: object) -> None:
        self._by_type: dict[type, Any] = {kind: one for one in resources for kind in type(one).__mro__}

    def __getitem__(self, kind: type[T]) -> T:
        found: T = self._by_type[kind]
        return found


def resources_of(request: Request[Any, Any, Any]) -> Resources:
    found: Resources = request.app.state[STATE_KEY]
    return found
