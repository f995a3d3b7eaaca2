"""Bytes cost what they weigh: reading any body is linear in its size, and never holds the loop for long."""

from __future__ import annotations

import csv
import random
import zlib
from collections.abc import Callable, Iterator

import pytest
import zstandard

from app.files import csv_reader
from app.files.csv_reader import MAX_RECORD_LINES, Record, Records
from app.files.readers import Family, Form, open_reader, read_by_steps
from app.http.body.decompression import open_inflater
from app.imports.batch.items import Items
from app.resources import diagnosis
from app.resources.decoding import Effort, Laborious, Rejected, UnreadablePiece
from tests.bench.parsing.inputs import TEXTS, Input, hostile
from tests.bench.parsing.measure import measure
from tests.types import CONTACTS, NAMES, read_items
from tests.unit.files.reading import read_pieces

SMALL, LARGE = 5_000, 50_000
NOISE = 0.02
"""Seconds that a measurement may be off on a busy machine."""


@pytest.mark.parametrize("family", TEXTS)
def test_the_benchmark_has_at_least_sixty_hostile_inputs_of_each_format(family: Family) -> None:
    assert len({one.name for one in hostile(family)}) >= 60


@pytest.mark.parametrize(
    "one", [pytest.param(one, id=f"{family} {one.name!a}") for family in TEXTS for one in hostile(family)]
)
def test_ten_times_the_bytes_take_ten_times_the_work(one: Input) -> None:
    """Quadratic work would take a hundred times as long. CPU of this process, so others on the machine do not count."""
    small = measure(one.make(SMALL), one.form).cpu
    bound = 30 * small + NOISE
    assert any(measure(one.make(LARGE), one.form).cpu < bound for _ in range(3))


def test_every_line_is_read_at_most_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """The count of lines that `csv` takes, which no busy machine changes."""
    taken = 0
    original = csv_reader._Source.__next__

    def count(source: csv_reader._Source) -> str:
        nonlocal taken
        taken += 1
        return original(source)

    monkeypatch.setattr(csv_reader._Source, "__next__", count)
    for row in ('a","\n', '1,"\n', '"\n', 'a","\n\n', '"a\n', ',"x\n'):
        taken, rows = 0, 4_000
        read_pieces(b"id,email\n" + row.encode() * rows, Form(family=Family.CSV), max_items=10 * rows)
        assert taken < 8 * rows, row


def read(text: str, size: int) -> list[Record]:
    machine = Records(",")
    return [
        *(record for at in range(0, len(text), size) for record in machine.feed(text[at : at + size])),
        *machine.finish(),
    ]


@pytest.mark.parametrize("limit", [131_072, 40])
def test_an_open_quote_costs_its_row_alone_as_if_all_lines_were_read_again(
    limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is remembered of one open quote is exactly what the next row would find by reading on."""
    rng = random.Random(limit)
    parts = ["a", '"', '","', ",", "\n", "\r\n", '""', 'a"', 'a","\n', '"a', 'x,"y\n', "a" * 10, "\n\n", '"\n']
    before = csv.field_size_limit(limit)
    try:
        for _ in range(3_000):
            text = "".join(rng.choices(parts, k=rng.randint(1, 40)))
            size = rng.choice((1, 3, 7, 1_000))
            quick = read(text, size)
            with monkeypatch.context() as patched:
                patched.setattr(csv_reader._Source, "fail", lambda source, problem: None)
                assert quick == read(text, size), text
    finally:
        csv.field_size_limit(before)


def test_rows_with_an_open_quote_fail_alone_and_name_their_lines() -> None:
    body = b'id,email\n1,a@b.de\n2,"\n3,c@d.de\na","\n5,e@f.de\n'
    contents = read_pieces(body, Form(family=Family.CSV), max_items=10)
    failed = [piece.errors[0].detail for piece in contents.pieces if isinstance(piece, UnreadablePiece)]
    assert failed == [
        "line 3: a quote is opened in this line and never closed",
        "line 5: a quote is opened in this line and never closed",
    ]
    assert len(contents.pieces) == 5


@pytest.mark.parametrize(
    ("family", "body"),
    [
        (Family.CSV, b"id,email\n" + b"1,a@b.de\n" * 60_000),
        (Family.CSV, b'id,email\n1,"' + b"a\n" * 60_000 + b'",' + b"1,a@b.de\n" * 60_000),
        (Family.NDJSON, b'{"id":"1"}\n' * 60_000),
        (Family.JSON, b'{"items":[' + b"{x}," * 60_000 + b"1]}"),
    ],
)
def test_reading_has_many_steps(family: Family, body: bytes) -> None:
    """None of them makes more pieces than take some milliseconds."""
    reader = open_reader(Form(family=family), NAMES)
    parts = [*(body[at : at + 16_384] for at in range(0, len(body), 16_384)), None]
    sizes = [len(portion.pieces) for part in parts for portion in reader.read(part)]
    assert max(sizes) <= 8_192
    assert sum(sizes) > 60_000 // 2


def _effort_of(items: list[bytes], most: int | None) -> Effort:
    effort = Effort(most)
    read_items(items, max_item_bytes=65_536, effort=effort)
    return effort


def test_hard_work_is_refused_within_a_transaction_and_done_in_steps_outside() -> None:
    hard = [
        b'{"id":"%d","email":"a@b.de","attributes":{%b}}' % (n, b'"k":"\\u0000",' * 3_000 + b'"x":1') for n in range(20)
    ]
    with pytest.raises(Laborious):
        _effort_of(hard, 262_144)
    effort = Effort(262_144)
    items = Items(CONTACTS, hard, last_wins=False, max_item_bytes=65_536, effort=effort)
    with pytest.raises(Laborious):
        list(items.parts())
    assert len(list(items.examine())) >= len(hard) // 2
    spent = effort.spent
    again = Items(CONTACTS, hard, last_wins=False, max_item_bytes=65_536, effort=effort)
    assert [row for part in again.parts() for row in part] == []
    assert effort.spent == spent, "nothing is examined twice"
    again.decide({})
    assert all(outcome.error_code == "INVALID_FIELD" for outcome in again.outcomes)


def test_what_others_may_interrupt_ends_as_what_nobody_interrupts() -> None:
    raws = [b'{"id":"%d","email":"a@b.de"}' % n for n in range(700)] + [b"1", b"{}", b'{"id":"1","email":"x"}'] * 100
    items = Items(CONTACTS, raws, last_wins=False, max_item_bytes=65_536)
    parted = [row for part in items.parts() for row in part]
    whole = [row for row in read_items(raws, max_item_bytes=65_536) if not isinstance(row, Rejected)]
    assert sorted(row.index for row in parted) == [row.index for row in whole]


def _gzip_members(count: int) -> bytes:
    return zlib.compress(b"", wbits=31) * count


def _zstd_frames(count: int) -> bytes:
    return zstandard.compress(b"") * count


@pytest.mark.parametrize(("encoding", "make"), [("gzip", _gzip_members), ("zstd", _zstd_frames)])
def test_members_without_content_are_taken_in_turns(encoding: str, make: Callable[[int], bytes]) -> None:
    """They make no piece that would let others have their turn, so an empty piece does."""
    data = make(30_000)
    inflater = open_inflater(encoding, lambda size: None)
    assert inflater is not None
    pieces: Iterator[bytes] = inflater.feed(data)
    found = list(pieces)
    inflater.finish()
    assert found, "nobody else had a turn"
    assert not any(found)
    assert len(data) / len(found) < 100_000


@pytest.mark.parametrize("size", [1, 7, 65_536, 10_000_000])
def test_a_record_has_a_bounded_number_of_lines_however_it_is_cut(size: int) -> None:
    longest = MAX_RECORD_LINES - 1
    fits, too_long = '1,"' + "\n" * longest + '"\n', '2,"' + "\n" * (longest + 1) + '"\n'
    fit, open_quote, closing = read(fits + too_long, size)
    assert fit.cells == ["1", "\n" * longest]
    assert (open_quote.line, open_quote.problem) == (
        MAX_RECORD_LINES + 1,
        "a quote is opened in this line and never closed",
    )
    assert closing.problem == "a quote is opened in this line and never closed"


def test_text_without_records_is_read_in_steps_too() -> None:
    body = b'id,email\n1,"' + b"\n" * 2_000_000
    steps = read_by_steps(body, Form(family=Family.CSV), NAMES, max_items=1_000_000)
    assert sum(1 for _ in steps) >= len(body) // 65_536


def test_a_quick_reading_of_a_small_item_finds_what_a_thorough_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    examine = diagnosis.Examiner(CONTACTS).examine
    rng = random.Random(1)
    names = ["id", "email", "phone", "attributes", "if_version", "a", "frist_name", "idx", "12"]
    values = [
        "1", "-0", "1.5", "1e400", "99999999999999999999", "18446744073709551615", "18446744073709551616", "null",
        "true", "NaN", "[1.5]", "[1]", "{}", '{"a":1}', '"\\ud800"', '"\\u0000"', '"x"', '" a"', '"a:b"', '""',
        '"a@b.de"', '"a@xn--a1.de"',
    ]  # fmt: skip
    for _ in range(5_000):
        members = (f'"{rng.choice(names)}":{rng.choice(values)}' for _ in range(rng.randint(0, 4)))
        raw = f"{{{','.join(members)}}}".encode()
        quick = examine(raw)
        with monkeypatch.context() as patched:
            patched.setattr(diagnosis, "_SMALL", -1)
            thorough = examine(raw)
        assert (quick.record_id, quick.errors) == (thorough.record_id, thorough.errors), raw
        assert repr({**quick.members}) == repr({**thorough.members}), raw
