"""Backoff is bounded, grows, honours what the destination asked, and ends."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from app.kit.retry import GiveUp, GiveUpReason, RetryPolicy, TryAgain, decide, envelope, next_delay
from app.settings import Settings

seconds = st.floats(min_value=0, max_value=1e6, allow_nan=False)
randoms = st.floats(min_value=0, max_value=1, exclude_max=True)
attempts = st.integers(min_value=1, max_value=10_000)
policies = st.builds(
    RetryPolicy,
    attempts=st.integers(min_value=1, max_value=30),
    budget=st.floats(min_value=0.1, max_value=1e6),
    backoff_base=st.floats(min_value=0.001, max_value=1e4),
    backoff_cap=st.floats(min_value=0.001, max_value=1e4),
)


def test_policy_takes_the_delivery_settings() -> None:
    settings = Settings(delivery_attempts=3, delivery_budget=60.0, delivery_backoff_base=0.5, delivery_backoff_cap=9.0)
    assert RetryPolicy.from_settings(settings) == RetryPolicy(
        attempts=3, budget=60.0, backoff_base=0.5, backoff_cap=9.0
    )


@given(attempts, policies, randoms, seconds)
def test_delay_stays_between_floor_and_cap(attempt: int, policy: RetryPolicy, chance: float, floor: float) -> None:
    delay = next_delay(attempt, policy, lambda: chance, floor)
    assert 0 <= floor <= delay <= max(policy.backoff_cap, floor)


@given(attempts, policies)
def test_envelope_never_shrinks_and_doubles_until_the_cap(attempt: int, policy: RetryPolicy) -> None:
    here, following = envelope(attempt, policy), envelope(attempt + 1, policy)
    assert here <= following <= policy.backoff_cap
    assert following in (here * 2, policy.backoff_cap)


def test_first_backoff_is_up_to_the_base_and_spread_over_all_of_it() -> None:
    policy = RetryPolicy(backoff_base=8.0)
    rng = random.Random(1)
    delays = [next_delay(1, policy, rng.random) for _ in range(2_000)]
    assert min(delays) < 0.5
    assert 7.5 < max(delays) < 8.0
    assert 3.7 < sum(delays) / len(delays) < 4.3


@given(policies, st.randoms(use_true_random=False), seconds, st.lists(seconds, min_size=30, max_size=30))
def test_trying_ends_within_attempts_and_budget(
    policy: RetryPolicy, rng: random.Random, first_at: float, floors: list[float]
) -> None:
    now, attempt = first_at, 0
    while True:
        attempt += 1
        assert attempt <= policy.attempts
        decision = decide(attempt, first_at, now, policy, rng.random, floors[attempt - 1])
        if isinstance(decision, GiveUp):
            break
        assert decision.delay >= floors[attempt - 1]
        now += decision.delay
        assert now - first_at <= policy.budget + 1e-6


def test_last_allowed_attempt_is_the_last() -> None:
    policy = RetryPolicy(attempts=3)
    assert isinstance(decide(2, 0, 1, policy, lambda: 0.5), TryAgain)
    assert decide(3, 0, 1, policy, lambda: 0.5) == GiveUp(GiveUpReason.ATTEMPTS)


def test_backoff_is_cut_to_use_up_the_budget() -> None:
    policy = RetryPolicy(attempts=9, budget=100, backoff_base=64, backoff_cap=64)
    assert decide(1, 0, 90, policy, lambda: 0.99) == TryAgain(10)
    assert decide(2, 0, 100, policy, lambda: 0.99) == GiveUp(GiveUpReason.BUDGET)


def test_retry_after_beyond_the_budget_gives_up_rather_than_knocking_early() -> None:
    policy = RetryPolicy(attempts=9, budget=100)
    assert decide(1, 0, 50, policy, lambda: 0.5, floor=50) == TryAgain(50)
    assert decide(1, 0, 50, policy, lambda: 0.5, floor=51) == GiveUp(GiveUpReason.BUDGET)


def test_clock_set_back_does_not_lengthen_the_budget() -> None:
    policy = RetryPolicy(attempts=9, budget=10, backoff_base=1_000, backoff_cap=1_000)
    assert decide(1, 500, 400, policy, lambda: 0.99) == TryAgain(10)
