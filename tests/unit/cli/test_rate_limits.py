"""What the client reads of the header fields about rate limits."""

from __future__ import annotations

import pytest

from app.cli.client.rate_limits import RateLimits

FIELDS = {
    "RateLimit-Policy": '"requests";q=600;w=60, "items";q=100;w=10;pk=:a:, "tenant-items";q=50;w=1',
    "RateLimit": '"requests";r=599;t=1, "items";r=40;t=6, "tenant-items";r=0;t=1',
}


def test_it_waits_for_what_is_not_there() -> None:
    limits = RateLimits()
    assert limits.wait("items", 5, 0.0) == 0
    limits.note(FIELDS, 100.0)
    assert limits.wait("requests", 1, 100.0) == 0
    assert limits.wait("items", 1, 100.0) == pytest.approx(0.02)
    assert limits.wait("items", 90, 100.0) == pytest.approx(5.0)
    assert limits.wait("items", 1_000, 100.0) == pytest.approx(6.0), "more than the bucket holds never fits at once"
    assert limits.wait("items", 90, 104.0) == pytest.approx(1.0)


@pytest.mark.parametrize(
    "state", ["", "nonsense", '"items"', '"items";r=x', '"items";r=5', ";;", '"items";q=0;w=1;r=0']
)
def test_what_it_does_not_understand_it_ignores(state: str) -> None:
    limits = RateLimits()
    limits.note({"RateLimit": state, "RateLimit-Policy": state}, 0.0)
    assert not limits.knows("items")
