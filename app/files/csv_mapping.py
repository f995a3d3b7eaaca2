"""Which column is which field, as a user writes it (`map=`, `--map`)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from app.kit import spelling
from app.resources.contacts import CONTACTS, STANDARD_FIELDS

FIELDS: Final = ("id", *STANDARD_FIELDS, "if_version", "source_version")
REQUIRED: Final = CONTACTS.required
KEY_PREFIX: Final = "attributes."
"""In a file of failed rows it marks an attribute whose bare name would mean something else: `attributes.email`."""

BOTH: Final = "id+email"
"""The target of a column that is the business key and the e-mail address."""
IGNORED: Final = ""
"""The target of a column that is left out."""

CLIP: Final = 60


class MappingError(ValueError):
    """A renaming of columns makes no sense by itself."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class Wording(msgspec.Struct, frozen=True):
    """How a user renames columns: the option's name, what separates column and field, and a whole example."""

    option: str
    separator: str
    show: Callable[[str, str], str]
    ignore: str = "ignore="
    """The option that leaves a column out."""


def fold(name: str) -> str:
    """The form in which column names are compared: "First Name", "first-name" and "FIRST_NAME" are one."""
    return re.sub(r"[\s_-]+", "", name).casefold()


BY_FOLD: Final = {fold(field): field for field in FIELDS}
_SPELLING: Final = spelling.Index(BY_FOLD)


def parse_mapping(pairs: Iterable[str], wording: Wording, ignored: Iterable[str] = ()) -> dict[str, str]:
    """`("Customer Id=id",)` as `{"Customer Id": "id"}`; the last separator counts. `ignored` columns have no target.

    Raises:
        MappingError: a pair without separator, two for one column but `id` and `email`, or a target that is no field
            and looks like one.
    """
    mapping: dict[str, str] = {}
    for pair in pairs:
        source, separator, target = pair.rpartition(wording.separator)
        if not (separator and source.strip() and target.strip()):
            raise MappingError(
                f"{wording.option} {quote(pair)}: write it as {wording.show('Column', 'field')}, "
                f"for example {wording.show('Customer Id', 'id')}"
            )
        target = _check_target(source, target.strip(), wording)
        if source in mapping:
            if {mapping[source], target} != set(REQUIRED):
                raise MappingError(f"{wording.option} names the column {quote(source)} twice")
            target = BOTH
        mapping[source] = target
    for source in ignored:
        if source in mapping:
            raise MappingError(f"{wording.option} and {wording.ignore} both name the column {quote(source)}")
        mapping[source] = IGNORED
    return mapping


def _check_target(source: str, target: str, wording: Wording) -> str:
    if target == BOTH or fold(target) in BY_FOLD or target.startswith(KEY_PREFIX):
        return BY_FOLD.get(fold(target), target)
    meant = _SPELLING.find(fold(target))
    if meant is None:
        return target
    raise MappingError(
        f"{wording.option} {quote(source + wording.separator + target)}: there is no field {quote(target)}; did you "
        f"mean {wording.show(source, meant)}? An attribute of that name is {wording.show(source, KEY_PREFIX + target)}"
    )


def quote(name: str) -> str:
    return repr(name if len(name) <= CLIP else name[:CLIP] + "…")
