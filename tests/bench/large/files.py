"""Rows as another system would write them: made from a seed, so that a file and a list of dictionaries are the same."""

from __future__ import annotations

import csv
import random
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final

import msgspec

Row = dict[str, Any]

FIRST: Final = ("Sheryl", "Preston", "Roy", "Linda", "Joanna", "Aimee", "Darren", "Brett", "Sheryl", "Zoë")
LAST: Final = ("Baxter", "Lozano", "Berry", "Olsen", "Bender", "Downs", "Peck", "Mullen", "Meyers", "Müller")
COMPANY: Final = ("Rasmussen Group", "Vega-Gentry", "Murillo-Perry", "Dominguez, Mcmillan and Donovan", "Steele Group")
CITY: Final = ("East Leonard", "East Jimmychester", "Isabelborough", "Bensonview", "West Priscilla")
COUNTRY: Final = ("Chile", "Djibouti", "Antigua and Barbuda", "Dominican Republic", "Slovakia (Slovak Republic)")
HEADER: Final = (
    "id", "email", "first_name", "last_name", "phone", "company",
    "city", "country", "phone_2", "subscribed", "website",
)  # fmt: skip


def rows(count: int, seed: int) -> Iterator[Row]:
    """Items with random 64-bit ids in hexadecimal, about 200 bytes as CSV and 310 as JSON; one in five is quoted."""
    bits = random.Random(seed).getrandbits
    for _ in range(count):
        n = bits(64)
        record_id = f"{n:016x}"
        yield {
            "id": record_id,
            "email": f"{record_id}@example.com",
            "first_name": FIRST[n % 10],
            "last_name": LAST[n // 10 % 10],
            "phone": f"({n % 900 + 100}){n % 907:03}-{n % 9973:04}x{n % 99991:05}",
            "company": COMPANY[n // 100 % 5],
            "attributes": {
                "city": CITY[n // 500 % 5],
                "country": COUNTRY[n // 2500 % 5],
                "phone_2": f"+1-{n % 911:03}-{n % 977:03}-{n % 9967:04}",
                "subscribed": f"202{n % 6}-{n % 12 + 1:02}-{n % 28 + 1:02}",
                "website": f"https://www.stephenson-{record_id[:10]}.com/",
            },
        }


def batches(count: int, seed: int, size: int) -> Iterator[list[Row]]:
    found = rows(count, seed)
    while batch := list(islice(found, size)):
        yield batch


def write_csv(path: Path, items: Iterable[Row]) -> Path:
    """As a spreadsheet writes it: header, CRLF, quotes only where they are needed."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(HEADER)
        for item in items:
            fields, attributes = list(item.values())[:6], item["attributes"]
            writer.writerow([*fields, *attributes.values()])
    return path


def write_ndjson(path: Path, items: Iterable[Row]) -> Path:
    encode = msgspec.json.Encoder().encode
    with path.open("wb") as file:
        for item in items:
            file.write(encode(item) + b"\n")
    return path


TYPES: Final = {"csv": "text/csv", "ndjson": "application/x-ndjson"}
WRITERS: Final = {"csv": write_csv, "ndjson": write_ndjson}


def write(folder: Path, kind: str, count: int, seed: int) -> Path:
    """A file of its own for this many rows of this seed."""
    return WRITERS[kind](folder / f"{count}-{seed}.{kind}", rows(count, seed))
