"""What a record held at a destination before we first wrote to it, as `record_syncs.before_image` keeps it.

Only a record that was there before us and was adopted (`match_on`) has one: an undo restores it.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec


class FieldBefore(msgspec.Struct, frozen=True, array_like=True):
    """One field that we were about to overwrite."""

    name: str
    """Ours, as in documents (`app.resources.documents`)."""
    path: tuple[str, ...]
    """Where it is there: a name, or several for one within another. The options may name it differently by now."""
    value: Any
    """As the destination wrote it; `None`: it was empty."""


class Adoption(msgspec.Struct, frozen=True):
    """A record that was found at a destination and is to become ours."""

    record_id: str
    remote_id: str
    before: list[FieldBefore]


_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(list[FieldBefore])


def write(before: Sequence[FieldBefore]) -> str:
    return _encoder.encode(before).decode()


def read(text: str | None) -> list[FieldBefore] | None:
    """`None`: there is none."""
    return None if text is None else _decoder.decode(text)
