"""An answer before it is sent."""

from typing import Generic, TypeVar

T = TypeVar("T")


class Reply(Generic[T]):
    """What is answered, where it is not a struct with 200 alone."""

    __slots__ = ("headers", "status", "value")

    def __init__(self, value: T | bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        """`value`: the struct, or its bytes if they are there already; with 304 those that are not sent."""
        self.value = value
        self.status = status
        self.headers = headers
