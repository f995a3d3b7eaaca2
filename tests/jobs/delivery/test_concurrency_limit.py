"""The window of calls at a time: a full round of good calls adds one, overload halves once a round."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from jobs.delivery.limits import concurrency_limit as rules
from jobs.delivery.limits.concurrency_limit import Window


def round_of(window: Window, most: int, now: float) -> Window:
    """As many good calls as the window lets out at once."""
    for _ in range(rules.calls_allowed(window, most)):
        window = rules.grow(window, most, began=now)
    return window


def test_nothing_is_held_against_a_destination_at_first() -> None:
    assert rules.calls_allowed(Window(), 8) == 8


def test_after_a_restart_it_climbs_by_one_a_round() -> None:
    window = rules.restart(10.0)
    seen = []
    for number in range(12):
        seen.append(rules.calls_allowed(window, 8))
        window = round_of(window, 8, 10.0 + number)
    assert seen[0] == 1
    assert max(after - before for before, after in itertools.pairwise(seen)) == 1
    assert seen[-1] == 8


def test_one_overload_is_one_halving_however_many_calls_met_it() -> None:
    window = Window()
    for _ in range(8):
        window = rules.halve(window, 8, began=1.0, now=2.0)
    assert rules.calls_allowed(window, 8) == 4
    assert rules.calls_allowed(rules.halve(window, 8, began=2.5, now=3.0), 8) == 2


def test_what_began_before_is_not_heard_after_a_restart() -> None:
    """Successes from before an outage must not open the floodgates behind it."""
    window = rules.restart(10.0)
    for _ in range(50):
        window = rules.grow(window, 8, began=9.9)
    assert rules.calls_allowed(window, 8) == 1


@given(
    st.lists(st.tuples(st.sampled_from(["grow", "halve", "restart"]), st.floats(0, 100)), max_size=200),
    st.integers(1, 64),
)
def test_always_between_one_and_the_most(steps: list[tuple[str, float]], most: int) -> None:
    window = Window()
    for step, at in steps:
        if step == "grow":
            window = rules.grow(window, most, began=at)
        elif step == "halve":
            window = rules.halve(window, most, began=at, now=at)
        else:
            window = rules.restart(at)
        assert 1 <= rules.calls_allowed(window, most) <= most
