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

_HEADERS: Final = {
    "id": """
        id, uid, uuid, guid, key, unique id, external id, contact id, contact id 18, customer id, user id,
        member id, subscriber id, client id, lead id, person id, record id, record id contact, leid, euid,
        customer number, customer no, customer nr, customer key, customer code, contact number, client number,
        client code, member number, membership number, kundennummer, kundennr, kunden nr, kunden nummer,
        kunden id, kundenkennung, kontakt id, kontaktnummer, mitgliedsnummer, mitgliedsnr, mitglieds nr,
        debitorennummer, datensatz id, datensatz id kontakt, identifiant, identifiant client, numero client,
        numero de client, n client, no client, no cliente, code client, id client, id contact, id du contact,
        id de contact, id de fiche d informations, id d enregistrement, id de registro, numero de cliente,
        n de cliente, no de cliente, codigo de cliente, codigo cliente, id cliente, id de cliente,
        id de contacto, id contacto, id del contacto, identificador
    """,
    "email": """
        email, mail, e mail, email address, e mail address, email addr, mail address, primary email, work email,
        business email, e mail 1 value, email 1 value, e mail 1 address, e mail adresse, email adresse,
        mailadresse, mail adresse, emailadresse, courriel, adresse de messagerie, adresse e mail, adresse email,
        adresse mail, adresse courriel, adresse electronique, adresse de courriel, correo electronico, correo,
        direccion de correo electronico, direccion de correo, direccion de email, direccion email,
        email principal, e mail principal
    """,
    "first_name": """
        first name, firstname, given name, givenname, forename, fname, vorname, rufname, prenom, nombre,
        nombre de pila, primer nombre
    """,
    "last_name": """
        last name, lastname, surname, family name, familyname, lname, nachname, familienname, zuname, nom,
        nom de famille, apellido, apellidos, primer apellido
    """,
    "phone": """
        phone, phone number, phone 1 value, telephone, telephone number, tel, mobile, mobile phone,
        mobile phone number, mobile number, cell, cell phone, primary phone, business phone, home phone, telefon,
        telefonnummer, telefonnr, tel nr, telefon geschaftlich, telefon privat, mobil, mobiltelefon, mobilnummer,
        handy, handynummer, rufnummer, telephone bureau, telephone mobile, telephone portable, tel mobile,
        numero de telephone, numero de telephone mobile, telephone domicile, telefono, telefono movil, movil,
        celular, numero de telefono, numero de telefono movil, telefono del trabajo, telefono particular
    """,
    "company": """
        company, company name, organization, organisation, organization name, organisation name,
        organization 1 name, account name, accountname, employer, associated company, firma, firmenname,
        unternehmen, unternehmensname, name des unternehmens, societe, entreprise, nom de l entreprise,
        nom entreprise, nom de la societe, nom du compte, empresa, compania, nombre de la empresa,
        nombre de empresa, nombre de la compania, organizacion, nombre de la cuenta
    """,
}
_MEANINGS: Final = {header.strip(): field for field, headers in _HEADERS.items() for header in headers.split(",")}
CERTAIN: Final = frozenset({"first_name", "last_name", "phone", "company"})
"""Fields that a column of one of these names fills unasked. What identifies a contact is left to people."""
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
