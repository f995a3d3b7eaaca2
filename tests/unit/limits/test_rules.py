"""The rule of rate limits: what a bucket lets through, whatever the order of requests and the clock."""

from __future__ import annotations

from datetime import timedelta
from fractions import Fraction

import pytest
import throttled
from hypothesis import given
from hypothesis import strategies as st

from app.limits import rules
from app.limits.rules import FULL, MICROSECONDS, Level, Mode
from app.vocabulary.rate_limits import MOST_QUOTA, MOST_SECONDS, Limit, parse_limit

LIMITS = st.builds(
    Limit,
    st.one_of(st.integers(1, 10), st.integers(1, 5_000), st.integers(1, MOST_QUOTA)),
    st.one_of(st.integers(1, 60), st.integers(1, MOST_SECONDS)),
)


def level_of(level: Level, limit: Limit) -> Fraction:
    """Microseconds until it is full."""
    return level.micros + Fraction(level.part, limit.quota)


def take(level: Level, limit: Limit, now: int, wanted: int, mode: Mode = "part") -> tuple[int, Level]:
    taken, (after,) = rules.decide([rules.at(level, now)], [limit], wanted, mode)
    return taken, after


@given(LIMITS)
def test_a_full_bucket_holds_its_quota_however_it_is_taken(limit: Limit) -> None:
    """At once, or one by one: rounding adds and removes nothing."""
    assert take(FULL, limit, 0, limit.quota + 1)[0] == limit.quota
    level, singles = FULL, min(limit.quota, 200)
    for _ in range(singles):
        taken, level = take(level, limit, 0, 1)
        assert taken == 1
    assert take(level, limit, 0, limit.quota)[0] == limit.quota - singles


@given(LIMITS, st.lists(st.tuples(st.integers(0, 10**8), st.integers(1, 3_000)), max_size=40))
def test_no_more_is_ever_admitted_than_quota_and_what_came_back(limit: Limit, calls: list[tuple[int, int]]) -> None:
    """From any moment on, in exact arithmetic; and what is refused would have been too much."""
    window = limit.window_seconds * MICROSECONDS
    level, now, start = FULL, 0, 0
    admitted = 0
    for step, wanted in calls:
        now += step
        taken, level = take(level, limit, now, wanted)
        admitted += taken
        assert admitted <= limit.quota + Fraction((now - start) * limit.quota, window)
        if taken < wanted:
            assert level_of(level, limit) + Fraction(window, limit.quota) > window


@given(LIMITS, st.integers(1, 5_000), st.integers(1, 5_000))
def test_a_refused_token_fits_when_it_was_said_and_not_before(limit: Limit, used: int, more: int) -> None:
    _, level = take(FULL, limit, 0, limit.quota)
    tokens = min(used, limit.quota)
    wait = rules.wait(level, limit, tokens)
    assert take(level, limit, wait, tokens, "whole")[0] == tokens
    assert take(level, limit, wait - 1, tokens, "whole")[0] == 0
    assert rules.wait(level, limit, tokens + more) > wait or limit.quota > MICROSECONDS


@given(LIMITS, st.lists(st.tuples(st.integers(-(10**8), 10**8), st.integers(1, 500)), max_size=30))
def test_a_clock_that_jumps_gives_nothing_when_it_goes_back(limit: Limit, calls: list[tuple[int, int]]) -> None:
    """Time that is gained by a step forward counts; what a step back repeats does not count twice."""
    level, now, forward, admitted = FULL, 10**12, 0, 0
    for step, wanted in calls:
        now += step
        forward += max(0, step)
        taken, level = take(level, limit, now, wanted)
        admitted += taken
    assert admitted <= limit.quota + Fraction(forward * limit.quota, limit.window_seconds * MICROSECONDS)


@given(LIMITS, st.integers(1, 5_000), st.integers(0, 10**7))
def test_what_is_given_back_is_there_again(limit: Limit, tokens: int, step: int) -> None:
    _, before = take(FULL, limit, 0, limit.quota // 2)
    taken, level = take(before, limit, 0, tokens)
    assert take(level, limit, 0, taken, "refund")[1] == before
    later = take(level, limit, step, taken, "refund")[1]
    assert level_of(later, limit) <= level_of(before, limit)
    assert level_of(take(FULL, limit, 0, tokens, "refund")[1], limit) == 0


@given(LIMITS, st.integers(1, 100_000))
def test_a_file_goes_into_debt_once_a_share_is_free(limit: Limit, tokens: int) -> None:
    """All of it is taken, so the debt is worked off before the next; requests find nothing meanwhile."""
    _, empty = take(FULL, limit, 0, limit.quota)
    assert take(empty, limit, 0, tokens, "debt") == (0, empty)
    share = min(tokens, max(1, limit.quota // rules.SHARE))
    wait = rules.wait(empty, limit, share)
    taken, level = take(empty, limit, wait, tokens, "debt")
    assert taken == tokens
    assert level_of(level, limit) == level_of(rules.at(empty, wait), limit) + Fraction(
        tokens * limit.window_seconds * MICROSECONDS, limit.quota
    )


@given(st.lists(LIMITS, min_size=2, max_size=4), st.integers(1, 5_000))
def test_of_several_buckets_the_smallest_decides(limits: list[Limit], wanted: int) -> None:
    taken, levels = rules.decide([FULL] * len(limits), limits, wanted, "part")
    assert taken == min(wanted, *(limit.quota for limit in limits))
    assert levels == [rules.add(FULL, taken, limit) for limit in limits]
    none, same = rules.decide(levels, limits, max(limit.quota for limit in limits) + 1, "whole")
    assert (none, same) == (0, levels)


def test_limits_are_read_as_they_are_written() -> None:
    assert parse_limit("0") is None
    assert str(parse_limit("600/60")) == "600/60"
    for wrong in ("", "600", "0/60", "1/0", "-1/60", "1/86401", "50000001/1", "1/60s"):
        with pytest.raises(ValueError, match="is no limit"):
            parse_limit(wrong)


@given(st.sampled_from([1, 2, 8, 64, 256]), st.sampled_from([1, 4, 32]), st.lists(st.integers(0, 200), max_size=80))
def test_one_by_one_it_decides_as_another_implementation(quota: int, seconds: int, steps: list[int]) -> None:
    """throttled-py's GCRA, at times and rates that are exact in its floating point numbers too."""
    now = 1_000 * MICROSECONDS
    theirs = throttled.Throttled(
        key="one",
        using=throttled.RateLimiterType.GCRA.value,
        quota=throttled.per_duration(timedelta(seconds=seconds), quota, burst=quota),
        store=throttled.MemoryStore(),
    )
    limit, level = Limit(quota, seconds), FULL
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("throttled.utils.now_mono_f", lambda: now / MICROSECONDS)
        for step in steps:
            now += step * 15_625  # a 64th of a second
            taken, level = take(level, limit, now, 1)
            assert theirs.limit().limited is (taken == 0)
