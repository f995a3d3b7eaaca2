"""The headers that people's exports really have, and what is said of them."""

# ruff: noqa: E501

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from app.files.csv_columns import HeaderError
from app.files.csv_mapping import BOTH, MappingError
from app.files.json_document import MalformedBody
from app.files.readers import WORDING, Family, Form
from tests.types import NAMES
from tests.unit.files.reading import read_pieces

GOOGLE = {
    "First Name": "first_name", "Middle Name": None, "Last Name": "last_name", "Phonetic First Name": None,
    "Phonetic Middle Name": None, "Name Prefix": None, "Name Suffix": None, "Nickname": None, "File As": None,
    "Organization Name": "company", "Organization Title": None, "Organization Department": None, "Birthday": None,
    "Notes": None, "Photo": None, "Labels": None, "E-mail 1 - Label": None, "E-mail 1 - Value": "email",
    "E-mail 2 - Label": None, "Phone 1 - Label": None, "Phone 1 - Value": "phone", "Address 1 - Label": None,
    "Given Name": "first_name", "Family Name": "last_name", "Additional Name": None, "Yomi Name": None, "Name": None,
    "E-mail 1 - Type": None, "Organization 1 - Name": "company", "Group Membership": None, "Hobby": None, "Gender": None,
    "Custom Field 1 - Value": None, "Website 1 - Value": None,
}  # fmt: skip
OUTLOOK = {
    "Title": None, "First Name": "first_name", "Middle Name": None, "Last Name": "last_name", "Suffix": None,
    "Company": "company", "Department": None, "Job Title": None, "Business Street": None, "Business Fax": None,
    "Business Phone": "phone", "Home Phone": "phone", "Mobile Phone": "phone", "Other Phone": None, "Pager": None,
    "E-mail Address": "email", "E-mail Type": None, "E-mail Display Name": None, "E-mail 2 Address": None,
    "Government ID Number": None, "Organizational ID Number": None, "Internet Free Busy": None, "Keywords": None,
    "Vorname": "first_name", "Nachname": "last_name", "Weitere Vornamen": None, "Firma": "company", "Abteilung": None,
    "Telefon geschäftlich": "phone", "Telefon (privat)": "phone", "Mobiltelefon": "phone", "E-Mail-Adresse": "email",
    "E-Mail-Typ": None, "E-Mail: Angezeigter Name": None, "Anrede": None, "Regierungs-Nr.": None, "Organisations-Nr.": None,
    "Prénom": "first_name", "Nom": "last_name", "Deuxième prénom": None, "Société": "company", "Service": None,
    "Téléphone (bureau)": "phone", "Tél. mobile": "phone", "Adresse de messagerie": "email",
    "Type de messagerie": None, "Nom complet de l'adresse de messagerie": None, "Code gouvernement": None,
    "Nombre": "first_name", "Apellidos": "last_name", "Segundo nombre": None, "Organización": "company",
    "Teléfono del trabajo": "phone", "Teléfono móvil": "phone", "Dirección de correo electrónico": "email",
    "Tipo de correo electrónico": None, "Puesto": None,
}  # fmt: skip
HUBSPOT = {
    "Record ID": "id", "Record ID - Contact": "id", "Contact ID": "id", "First Name": "first_name", "Last Name": "last_name",
    "Email": "email", "Phone Number": "phone", "Mobile Phone Number": "phone", "Company name": "company",
    "Contact owner": None, "Lead Status": None, "Lifecycle Stage": None, "Create Date": None, "Email Domain": None,
    "Email hard bounce reason": None, "Marketing contact status": None, "Associated Company": "company",
    "Associated Company IDs": None, "Last Activity Date": None, "Datensatz-ID": "id", "Datensatz-ID \u2013 Kontakt": "id",
    "E-Mail": "email", "Telefonnummer": "phone", "Mobilnummer": "phone", "Unternehmensname": "company",
    "Kontakt-Inhaber": None, "Lead-Status": None, "ID de fiche d'informations": "id", "Numéro de téléphone": "phone",
    "Nom de famille": "last_name", "Nom de l'entreprise": "company", "Propriétaire du contact": None,
    "ID de registro": "id", "Correo": "email", "Número de teléfono": "phone", "Nombre de la empresa": "company",
    "Propietario del contacto": None, "Estado del lead": None,
}  # fmt: skip
SALESFORCE = {
    "Contact ID": "id", "Contact ID 18": "id", "Account ID": None, "Account Name": "company", "First Name": "first_name",
    "Last Name": "last_name", "Email": "email", "Phone": "phone", "Mobile": "phone", "Mailing Street": None, "Fax": None,
    "Email Opt Out": None, "Salutation": None, "Reports To": None, "Valid From": None, "Owner ID": None, "Lead ID": "id",
    "Kontakt-ID": "id", "Accountname": "company", "Anrede": None, "ID du contact": "id", "Nom du compte": "company",
    "Prénom": "first_name", "ID de contacto": "id", "Nombre de la cuenta": "company", "Correo electrónico": "email",
    "Móvil": "phone",
}  # fmt: skip
MAILCHIMP = {
    "Email Address": "email", "First Name": "first_name", "Last Name": "last_name", "Address": None, "Phone Number": "phone",
    "Birthday": None, "MEMBER_RATING": None, "OPTIN_TIME": None, "OPTIN_IP": None, "CONFIRM_TIME": None, "LATITUDE": None,
    "GMTOFF": None, "TIMEZONE": None, "CC": None, "REGION": None, "LAST_CHANGED": None, "LEID": "id", "EUID": "id",
    "NOTES": None, "TAGS": None, "E-Mail-Adresse": "email", "Adresse e-mail": "email", "Adresse email": "email",
    "Dirección de email": "email",
}  # fmt: skip
EXCEL = {
    "ID": "id", "Id": "id", "Customer Id": "id", "CustomerID": "id", "customer_number": "id", "Customer No.": "id",
    "Kundennummer": "id", "Kundennr": "id", "Kunden-Nr.": "id", "KdNr": None, "Mitgliedsnummer": "id", "N° client": "id",
    "Numéro client": "id", "Code client": "id", "Identifiant": "id", "Nº de cliente": "id", "Código de cliente": "id",
    "Mail": "email", "E-MAIL": "email", "eMail": "email", "Courriel": "email", "Handy": "phone", "Handynummer": "phone",
    "Tel.": "phone", "Rufnummer": "phone", "Portable": None, "Celular": "phone", "Unternehmen": "company",
    "Entreprise": "company", "Empresa": "company", "Compañía": "company", "Apellido": "last_name", "Familienname": "last_name",
    "Paid": None, "Video": None, "Valid": None, "Grid": None, "Index": None, "d": None, "Idea": None, "Guide": None,
    "Void": None, "Residence": None, "Identity": None, "Emailed": None, "Phoned": None, "Headphones": None, "Companyon": None,
    "Betrag": None, "Straße": None, "PLZ": None, "Ort": None, "Rue": None, "Ville": None, "Calle": None, "Ciudad": None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("header", "field"),
    [
        pytest.param(header, field, id=f"{name} {header!a}")
        for name, table in {
            "Google": GOOGLE, "Outlook": OUTLOOK, "HubSpot": HUBSPOT, "Salesforce": SALESFORCE, "Mailchimp": MAILCHIMP,
            "Excel": EXCEL,
        }.items()
        for header, field in table.items()
    ],
)  # fmt: skip
def test_each_header_means_a_field_or_none(header: str, field: str | None) -> None:
    assert NAMES.headers.find_meaning(header) == field


def refuse(text: str, **mapping: str) -> str:
    with pytest.raises(HeaderError) as caught:
        read_pieces(text.encode(), Form(family=Family.CSV, mapping=mapping), max_items=100)
    return caught.value.detail


def items(text: str, **mapping: str) -> list[Any]:
    contents = read_pieces(text.encode(), Form(family=Family.CSV, mapping=mapping), max_items=100)
    return [msgspec.json.decode(piece) for piece in contents.pieces if not hasattr(piece, "errors")]


def test_advice_never_names_a_column_that_has_nothing_to_do_with_it() -> None:
    for header in ("Middle Name,E-mail 1 - Label,E-mail 1 - Value", "Paid,Email", "Video,Email", "a,b,c,d"):
        told = refuse(f"{header}\n")
        for wrong in ("Middle%20Name:id", "Label:", "Paid:id", "Video:id", "d:id"):
            assert wrong not in told


def test_advice_is_given_only_where_the_values_fit() -> None:
    assert "Contact%20ID:id" in refuse("Contact ID,Email\n1,a@b.de\n2,c@d.de\n")
    told = refuse("Contact ID,Email\n,a@b.de\n,c@d.de\n")
    assert "Contact%20ID:id" not in told
    assert "Contact%20ID:id" not in refuse("Contact ID,Email\n7,a@b.de\n7,c@d.de\n"), "two contacts would become one"
    assert "Mail:email" not in refuse("id,Mail\n1,letter\n2,parcel\n")
    assert "Kontakt:email" in refuse("id,Kontakt\n1,a@b.de\n2,c@d.de\n"), "the values say what the header does not"


def test_a_file_with_addresses_and_no_id_gets_one_advice_that_works() -> None:
    told = refuse("Email,Name\na@b.de,Ann\n")
    assert told.count("?map=") == 1
    assert "?map=Email:id" in told
    assert items("Email,Name\na@b.de,Ann\n", Email="id") == [
        {"id": "a@b.de", "email": "a@b.de", "attributes": {"Name": "Ann"}}
    ]
    told = refuse("E-mail 1 - Label,E-mail 1 - Value\n* Work,a@b.de\n")
    assert told.count("?map=") == 1
    assert "?map=E-mail%201%20-%20Value:id" in told
    assert items("E-mail 1 - Value\na@b.de\n", **{"E-mail 1 - Value": "id"}) == [{"id": "a@b.de", "email": "a@b.de"}]
    told = refuse("Kontakt\na@b.de\n")
    assert f"?map=Kontakt:{BOTH.replace('+', '%2B')}" in told
    assert items("Kontakt\na@b.de\n", Kontakt=BOTH) == [{"id": "a@b.de", "email": "a@b.de"}]


def test_two_renamings_of_one_column_make_it_both() -> None:
    assert NAMES.parse_mapping(["a:id", "a:email"], WORDING) == {"a": BOTH}
    assert NAMES.parse_mapping(["a:email", "a:id"], WORDING) == {"a": BOTH}


def test_an_id_taken_from_an_address_leaves_another_address_alone() -> None:
    found = items("Email,Mail\na@b.de,c@d.de\n", Email="id", Mail="email")
    assert found == [{"id": "a@b.de", "email": "c@d.de"}]


def test_usual_names_in_other_languages_are_recognized_where_only_one_column_has_them() -> None:
    found = items("id,email,Vorname,Nachname,Telefon,Firma\n1,a@b.de,Ann,Lee,030 1234,ACME\n")
    assert found == [
        {"id": "1", "email": "a@b.de", "first_name": "Ann", "last_name": "Lee", "phone": "030 1234", "company": "ACME"}
    ]
    found = items("id,email,Home Phone,Mobile Phone\n1,a@b.de,030 1,0171 2\n")
    assert found[0]["attributes"] == {"Home Phone": "030 1", "Mobile Phone": "0171 2"}
    found = items("id,email,Phone,Telefon\n1,a@b.de,030 1,0171 2\n")
    assert (found[0]["phone"], found[0]["attributes"]) == ("030 1", {"Telefon": "0171 2"})
    assert items("id,email,Nom\n1,a@b.de,Ann Lee\n")[0]["attributes"] == {"Nom": "Ann Lee"}
    assert items("id,email,Prénom,Nom\n1,a@b.de,Ann,Lee\n")[0]["last_name"] == "Lee"


def test_a_slip_in_the_target_of_a_renaming_is_asked_about() -> None:
    with pytest.raises(MappingError) as caught:
        NAMES.parse_mapping(["Vorname:frist_name"], WORDING)
    assert "did you mean ?map=Vorname:first_name?" in caught.value.detail
    mapping = NAMES.parse_mapping(["Vorname:attributes.frist_name", "x:city"], WORDING)
    found = items("id,email,Vorname,x\n1,a@b.de,Ann,Bonn\n", **mapping)
    assert found[0]["attributes"] == {"frist_name": "Ann", "city": "Bonn"}


def test_an_ignored_column_is_left_out() -> None:
    mapping = NAMES.parse_mapping([], WORDING, ["Secret"])
    assert items("id,email,Secret\n1,a@b.de,x\n", **mapping) == [{"id": "1", "email": "a@b.de"}]
    with pytest.raises(MappingError):
        NAMES.parse_mapping(["Secret:id"], WORDING, ["Secret"])
    assert "'Secert'" in refuse("id,email,Secret\n", Secert="")


@pytest.mark.parametrize(
    ("first", "rows"), [("sep=;\r\n", "id;email\n1;a@b.de\n"), ('"sep=|"\n', "id|email\n1|a@b.de\n")]
)
def test_the_delimiter_that_excel_tells_is_read(first: str, rows: str) -> None:
    assert items(first + rows) == [{"id": "1", "email": "a@b.de"}]
    broken = read_pieces((first + rows + "2\n").encode(), Form(family=Family.CSV), max_items=9).pieces[1]
    assert "line 4" in broken.errors[0].detail  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("head", "word"),
    [(b"PK\x03\x04", "workbook"), (b"\xd0\xcf\x11\xe0", "old Excel"), (b"\x1f\x8b\x08\0", "Content-Encoding: gzip")],
)
@pytest.mark.parametrize("family", [Family.CSV, Family.NDJSON])
def test_a_workbook_sent_as_text_is_named(family: Family, head: bytes, word: str) -> None:
    with pytest.raises(MalformedBody) as caught:
        read_pieces(head + bytes(range(256)), Form(family=family), max_items=9)
    assert word in caught.value.detail
    assert "windows-1252" not in caught.value.detail
