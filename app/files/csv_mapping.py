"""Which column is which field, as a user writes it (`map=`, `--map`)."""

import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Final

import msgspec

from app.files.csv_headers import Headers
from app.kit import spelling
from app.resources.declaration import Field, Kind, Resource

KEY_PREFIX: Final = "attributes."
"""In a file of failed rows it marks an attribute whose bare name would mean something else: `attributes.email`."""

BOTH: Final = "id+email"
"""The target of a column that is the business key and the e-mail address."""
IGNORED: Final = ""
"""The target of a column that is left out."""

CLIP: Final = 60


class ColumnsError(ValueError):
    """`detail` names the columns and the remedy."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class MappingError(ColumnsError):
    """A renaming of columns makes no sense by itself."""


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


_OF_EVERY_TYPE: Final = (
    Field(name="deleted", kind=Kind.BOOLEAN),
    Field(name="if_version", kind=Kind.INTEGER),
    Field(name="source_version", kind=Kind.INTEGER),
)


class ColumnNames:
    """The fields of a type as columns name them."""

    def __init__(self, resource: Resource) -> None:
        self.attributes = resource.attributes
        self.required = resource.required
        self.by_name: Mapping[str, Field] = {
            field.name: field for field in (resource.id, *resource.fields, *_OF_EVERY_TYPE)
        }
        self.by_fold = {fold(name): name for name in self.by_name}
        self.headers = Headers(resource)
        self.mail = "email" if resource.required[1:] == ("email",) else None
        """The field that can be the id as well, where it is all that an item needs beside that."""
        self._spelling = spelling.Index(self.by_fold)

    @property
    def fields(self) -> tuple[str, ...]:
        return tuple(self.by_name)

    def parse_mapping(self, pairs: Iterable[str], wording: Wording, ignored: Iterable[str] = ()) -> dict[str, str]:
        """`("Customer Id=id",)` as `{"Customer Id": "id"}`; the last separator counts. `ignored` columns have no
        target.

        Raises:
            MappingError: a pair without separator, two for one column but `id` and `email`, or a target that is no
                field and looks like one.
        """
        mapping: dict[str, str] = {}
        for pair in pairs:
            source, separator, target = pair.rpartition(wording.separator)
            if not (separator and source.strip() and target.strip()):
                raise MappingError(
                    f"{wording.option} {quote(pair)}: write it as {wording.show('Column', 'field')}, "
                    f"for example {wording.show('Customer Id', 'id')}"
                )
            target = self._check_target(source, target.strip(), wording)
            if source in mapping:
                if self.mail is None or {mapping[source], target} != {"id", self.mail}:
                    raise MappingError(f"{wording.option} names the column {quote(source)} twice")
                target = BOTH
            mapping[source] = target
        for source in ignored:
            if source in mapping:
                raise MappingError(f"{wording.option} and {wording.ignore} both name the column {quote(source)}")
            mapping[source] = IGNORED
        return mapping

    def _check_target(self, source: str, target: str, wording: Wording) -> str:
        both = target == BOTH and self.mail is not None
        if both or fold(target) in self.by_fold or target.startswith(KEY_PREFIX):
            return self.by_fold.get(fold(target), target)
        meant = self._spelling.find(fold(target))
        if meant is None:
            return target
        raise MappingError(
            f"{wording.option} {quote(source + wording.separator + target)}: there is no field {quote(target)}; did "
            f"you mean {wording.show(source, meant)}? An attribute of that name is "
            f"{wording.show(source, KEY_PREFIX + target)}"
        )


@lru_cache(maxsize=512)
def names_of(resource: Resource) -> ColumnNames:
    return ColumnNames(resource)


def quote(name: str) -> str:
    return repr(name if len(name) <= CLIP else name[:CLIP] + "…")
