"""Columns that travel as one text come back as they were, whatever stands in them."""

from __future__ import annotations

import asyncpg
from hypothesis import given, settings
from hypothesis import strategies as st

from app.kit.postgres.column_codec import numbers, texts

VALUES = st.lists(
    st.none()
    | st.sampled_from(["", "\x1f", "\x1e", "a\x1fb", "\x1e\x1f", "NULL", "{}", "é", "\n"])
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8),
    min_size=1,
    max_size=12,
)

NUMBERS = st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=8)


async def test_columns_come_back_as_they_were(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)

    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.tuples(VALUES, NUMBERS), min_size=1, max_size=6))
    def collect(batch: list[tuple[list[str | None], list[int | None]]]) -> None:
        drawn.extend(batch)

    drawn: list[tuple[list[str | None], list[int | None]]] = []
    collect()
    for column, ints in drawn:
        joined = texts([column])
        back = await connection.fetchval(
            "SELECT split_column($1, $2, $3)", joined.columns[0], joined.separator, joined.null
        )
        assert back == (None if all(v is None for v in column) else column)
        number = await connection.fetchval("SELECT $1::text::bigint[]", numbers(ints))
        assert number == (None if all(v is None for v in ints) else ints)
    await connection.close()


def test_marks_are_exchanged_when_the_values_have_them() -> None:
    assert texts([["a", None]]).separator == "\x1f"
    assert texts([["a\x1fb", None]]).separator != "\x1f"
    assert texts([["a"], ["\x1e", None]]).null != "\x1e"
