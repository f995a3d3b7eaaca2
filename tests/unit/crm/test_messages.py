"""What a CRM said, as one line that tells no secret."""

from __future__ import annotations

import pytest

from jobs.outbound.messages import sanitize_message


@pytest.mark.parametrize(
    ("text", "secret", "told"),
    [
        ("the token pat-na1-1234 is expired", "pat-na1-1234", "the token *** is expired"),
        ("Bearer=pat-na1-1234;x", "pat-na1-1234", "Bearer=***;x"),
        ("xpat-na1-1234x", "pat-na1-1234", "x***x"),
        ("no answer from the destination", "e", "no answer from the destination"),
        ("no answer: e", "e", "no answer: ***"),
        ("key=s3c, or s3cret", "s3c", "key=***, or s3cret"),
        ("a.b and axb", "a.b", "*** and axb"),
        ("nothing to hide", "", "nothing to hide"),
    ],
)
def test_a_secret_is_taken_out_and_a_short_one_only_where_it_stands_alone(text: str, secret: str, told: str) -> None:
    assert sanitize_message(text, secret) == told


def test_it_is_one_line_of_bounded_length() -> None:
    assert sanitize_message("a\nb\0\tc", "") == "a b c"
    assert len(sanitize_message("x" * 1_000, "")) == 300
