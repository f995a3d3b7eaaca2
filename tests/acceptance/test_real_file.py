"""A file as people have it, from the shell to the CRM: once, again, with one change, and with rows to mend."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from tests.acceptance.harness import Installation

COLUMNS = [
    "Index",
    "Customer Id",
    "First Name",
    "Last Name",
    "Company",
    "City",
    "Country",
    "Phone 1",
    "Phone 2",
    "Email",
    "Subscription Date",
    "Website",
]
MAP = ("--map", "Customer Id=id", "--map", "Phone 1=phone")
PHONES = ["(496)978-3969x58947", "001-808-617-6467x12895", "229.077.5154", "+1-539-402-0259", "5375011001"]


def _row(n: int) -> list[str]:
    first, last = ["Zoë", "Jürgen", "D'Arcy", "Mary-Ann", "Ødegård"][n % 5], f"O'Neil-{n}"
    return [
        str(n + 1),
        f"{n:02X}dE85{n:04}cA9f",
        first,
        last,
        'Rasmussen, "Reed" & Sons' if n % 3 else "Dominguez PLC",
        "East Leonard",
        "Côte d'Ivoire" if n % 2 else "Chile",
        PHONES[n % 5],
        PHONES[(n + 1) % 5],
        f"contact.{n}@example-{n % 7}.com",
        f"2021-{n % 12 + 1:02}-{n % 28 + 1:02}",
        f"https://www.example-{n}.com/",
    ]


def _write(path: Path, rows: list[list[str]]) -> Path:
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    return path


async def _push(tranche: Installation, file: Path, *more: str) -> tuple[int, dict[str, object]]:
    code, output = await tranche.command("push", str(file), *MAP, "--json", *more)
    return code, json.loads(output)


async def test_once_again_and_with_one_change(tranche: Installation) -> None:
    await tranche.start_both()
    rows = [_row(n) for n in range(100)]
    file = _write(tranche.folder / "customers.csv", rows)
    code, told = await _push(tranche, file)
    assert (code, told["succeeded"], told["failed"], told["retry"]) == (0, 100, 0, 0)
    assert told["effects"] == {"hubspot": {"ok": 100}}
    effects = await tranche.sandbox.effects()
    assert {effect["key"] for effect in effects} == {row[1] for row in rows}
    assert len(effects) == 100
    seen = (await tranche.sandbox.contacts())[rows[6][1]]["properties"]
    assert (seen["email"], seen["firstname"], seen["phone"]) == (rows[6][9], "Jürgen", rows[6][7])
    assert (seen["country"], seen["subscription_date"]) == ("Chile", rows[6][10])
    contact = await tranche.get(f"/v1/contacts/{rows[6][1]}")
    assert contact["company"] == rows[6][4]
    assert contact["attributes"]["Website"] == rows[6][11]

    calls = len(await tranche.sandbox.calls())
    code, told = await _push(tranche, file)
    assert code == 0
    assert told["results"] == {"created": 0, "updated": 0, "unchanged": 100, "superseded": 0, "deleted": 0}
    assert len(await tranche.sandbox.calls()) == calls

    rows[42][9] = "changed@example.com"
    code, told = await _push(tranche, _write(file, rows))
    assert code == 0
    assert told["results"] == {"created": 0, "updated": 1, "unchanged": 99, "superseded": 0, "deleted": 0}
    (sent,) = (await tranche.sandbox.effects())[100:]
    assert (sent["key"], sent["properties"]["email"]) == (rows[42][1], "changed@example.com")
    assert len(await tranche.sandbox.calls()) == calls + 1


async def test_bad_rows_are_mended_and_pushed_again(tranche: Installation) -> None:
    await tranche.start_both()
    rows = [_row(n) for n in range(30)]
    rows[3][9] = "no-at-sign"
    rows[11][7] = "call me"
    rows[12][1] = ""
    failed = tranche.folder / "failed.csv"
    code, told = await _push(tranche, _write(tranche.folder / "customers.csv", rows), "--failed-out", str(failed))
    assert (code, told["succeeded"], told["failed"], told["failed_rows"]) == (1, 27, 3, 3)
    with failed.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        assert [name for name in reader.fieldnames or [] if name in COLUMNS] == COLUMNS
        bad = list(reader)
    assert [row["error_code"] for row in bad] == ["INVALID_EMAIL", "INVALID_PHONE", "MISSING_FIELD"]
    assert [row["Index"] for row in bad] == ["4", "12", "13"]
    bad[0]["Email"], bad[1]["Phone 1"], bad[2]["Customer Id"] = "mended@example.com", PHONES[0], "mended"
    with failed.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(bad[0]))
        writer.writeheader()
        writer.writerows(bad)
    code, told = await _push(tranche, failed)
    assert (code, told["succeeded"], told["failed"]) == (0, 3, 0)
    effects = await tranche.sandbox.effects()
    assert len(effects) == 30
    assert len({effect["key"] for effect in effects}) == 30


async def test_a_wrong_key_is_an_exit_code(tranche: Installation) -> None:
    await tranche.start_api()
    file = _write(tranche.folder / "customers.csv", [_row(1)])
    code, output = await tranche.command(
        "push", str(file), *MAP, TRANCHE_API_KEY=tranche.key[:-1] + ("a" if tranche.key[-1] != "a" else "b")
    )
    assert code == 2
    assert "Traceback" not in output
