"""What the column headers of address books, CRMs and spreadsheets mean, in English, German, French and Spanish.

Headers are compared as whole words: "Middle Name" has nothing to do with "id". Sources: the exports of Google Contacts,
Outlook, HubSpot, Salesforce, Mailchimp, and what people write into spreadsheets.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final

from app.resources import email
from app.resources.contacts import CONTACTS

_MEANINGS: Final = {
    header.strip(): field.name for field in (CONTACTS.id, *CONTACTS.fields) for header in field.headers.split(",")
}
CERTAIN: Final = frozenset(field.name for field in CONTACTS.fields if field.fills)
"""Fields that a column of one of these names fills unasked."""
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


def find_meaning(header: str) -> str | None:
    """The field that a column of this name holds in all likelihood."""
    words = spell(header)
    return _MEANINGS.get(words) or _MEANINGS.get(words.replace(" ", ""))


def recognize(header: Sequence[str], taken: Iterable[str]) -> dict[int, str]:
    """Columns that fill a field though they have another name: none but one means it, and nothing in `taken` does."""
    places: dict[str, list[int]] = {}
    for i, name in enumerate(header):
        field = find_meaning(name)
        if field is not None:
            places.setdefault(field, []).append(i)
    missing = CERTAIN - set(taken)
    found = {at[0]: field for field, at in places.items() if field in missing and len(at) == 1}
    fields = {*found.values(), *taken}
    return {i: field for i, field in found.items() if _PAIRED.get(spell(header[i]), field) in fields}


def fits(field: str, values: Sequence[str]) -> bool:
    """Whether a column that has these values in the first rows can be meant; without rows nothing speaks against it."""
    if not values:
        return True
    filled = [value.strip() for value in values if value.strip()]
    if field == "id":
        return len(filled) >= _ENOUGH * len(values) and len(set(filled)) == len(filled) <= _LONGEST_ID * len(filled)
    if field == "email":
        sound = sum(email.is_usual(value) or email.find_fault(value) is None for value in filled)
        return bool(filled) and sound >= _ENOUGH * len(filled)
    if field == "phone":
        return all(sum(map(str.isdigit, value)) >= _FEWEST_DIGITS for value in filled)
    return True
