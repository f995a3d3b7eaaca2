"""A file as people have them: columns of their own names, and rows with faults."""

from __future__ import annotations

import csv
import io

ROWS = 60
BAD_MAIL = (3, 11, 19, 27, 35, 43)
NO_ID = (5, 21, 47)
BAD_PHONE = (8, 30, 55)
FAULTS = len(BAD_MAIL) + len(NO_ID) + len(BAD_PHONE)


def messy_csv(rows: int = ROWS) -> bytes:
    """Sixty people, of whom twelve cannot be imported; the file is of Windows and separated by semicolons."""
    out = io.StringIO()
    writer = csv.writer(out, delimiter=";", lineterminator="\r\n")
    writer.writerow(["Kundennummer", "E-Mail-Adresse", "Vorname", "Telefon", "Lieblingsfarbe"])
    for n in range(rows):
        mail = f"p{n}(at)example.org" if n in BAD_MAIL else f"p{n}@example.org"
        phone = "none" if n in BAD_PHONE else f"+49 30 {1000 + n}"
        writer.writerow(["" if n in NO_ID else f"k{n}", mail, f"Jürgen {n}", phone, "grün"])
    return out.getvalue().encode("windows-1252")
