"""What the column headers of address books, CRMs and spreadsheets mean, in English, German, French and Spanish.

Headers are compared as whole words: "Middle Name" has nothing to do with "id". Sources: the exports of Google Contacts,
Outlook, HubSpot, Salesforce, Mailchimp, and what people write into spreadsheets.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final

from app.resources import email
from app.resources.declaration import Field, Kind, Resource

_PAIRED: Final = {"nom": "first_name", "nombre": "last_name"}
"""Words for "name" that are half of one only where the other half has a column."""
_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_ENOUGH: Final = 0.8
"""The part of the values that must fit."""
_FEWEST_DIGITS: Final = 5
_LONGEST: Final = 80
_LONGEST_ID: Final = 255


@lru_cache(maxsize=2_048)
def spell(header: str) -> str:
    """The words of a header: "E-Mail-Adresse" and "e_mail adresse" are one, and so are "Prénom" and "prenom"."""
    plain = unicodedata.normalize("NFKD", header[:_LONGEST].replace("ß", "ss").replace("ø", "o"))
    plain = "".join(sign for sign in plain if not unicodedata.combining(sign))
    return " ".join(_WORD.findall(plain)).lower()


def list_names(field: Field) -> list[str]:
    """What columns may call the field."""
    return [header.strip() for header in (field.headers or field.name.replace("_", " ")).split(",")]


class Headers:
    def __init__(self, resource: Resource) -> None:
        self._meanings = {
            header: field.name for field in (resource.id, *resource.fields) for header in list_names(field)
        }
        self.certain = frozenset(field.name for field in resource.fields if field.fills)
        """Fields that a column of one of these names fills unasked."""

    def find_meaning(self, header: str) -> str | None:
        """The field that a column of this name holds in all likelihood."""
        words = spell(header)
        return self._meanings.get(words) or self._meanings.get(words.replace(" ", ""))

    def recognize(self, header: Sequence[str], taken: Iterable[str]) -> dict[int, str]:
        """Columns that fill a field though they have another name: none but one means it, and nothing in `taken`
        does."""
        places: dict[str, list[int]] = {}
        for i, name in enumerate(header):
            field = self.find_meaning(name)
            if field is not None:
                places.setdefault(field, []).append(i)
        missing = self.certain - set(taken)
        found = {at[0]: field for field, at in places.items() if field in missing and len(at) == 1}
        fields = {*found.values(), *taken}
        return {i: field for i, field in found.items() if _PAIRED.get(spell(header[i]), field) in fields}


def fits(field: Field, values: Sequence[str]) -> bool:
    """Whether a column that has these values in the first rows can be meant; without rows nothing speaks against it."""
    if not values:
        return True
    filled = [value.strip() for value in values if value.strip()]
    if field.name == "id":
        return len(filled) >= _ENOUGH * len(values) and len(set(filled)) == len(filled) <= _LONGEST_ID * len(filled)
    if field.kind is Kind.EMAIL:
        sound = sum(email.is_usual(value) or email.find_fault(value) is None for value in filled)
        return bool(filled) and sound >= _ENOUGH * len(filled)
    if field.kind is Kind.PHONE:
        return all(sum(map(str.isdigit, value)) >= _FEWEST_DIGITS for value in filled)
    return True
