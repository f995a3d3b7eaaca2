"""Who is next: shares by weight, no starvation, no credit for who was away."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from app.kit.fair_order import FairOrder

_TENANTS = st.dictionaries(
    st.integers(1, 6), st.tuples(st.floats(0.1, 10), st.floats(1, 1_000)), min_size=2, max_size=6
)


@given(_TENANTS)
def test_tenants_that_always_wait_get_shares_by_weight(tenants: dict[int, tuple[float, float]]) -> None:
    """In the long run, and at no time further from it than one service of each."""
    order = FairOrder()
    got = Counter[int]()
    for tenant in tenants:
        order.add(tenant)
    for _ in range(300):
        tenant = order.first(lambda _: True)
        assert tenant is not None
        weight, cost = tenants[tenant]
        order.charge(tenant, cost, weight)
        got[tenant] += 1
        shares = {one: got[one] * tenants[one][1] / tenants[one][0] for one in tenants}
        for one in tenants:
            for other in tenants:
                apart = tenants[one][1] / tenants[one][0] + tenants[other][1] / tenants[other][0]
                assert shares[one] - shares[other] <= apart + 1e-6 * shares[one]


@given(st.lists(st.tuples(st.integers(0, 9), st.floats(1, 100)), max_size=200))
def test_who_waits_is_served_though_others_come_and_go(events: list[tuple[int, float]]) -> None:
    order = FairOrder()
    order.add(99)
    passed = 0.0
    for tenant, cost in events:
        order.add(tenant)
        chosen = order.first(lambda _: True)
        assert chosen is not None
        order.charge(chosen, cost)
        if chosen == 99:
            return
        passed += cost
        order.remove(chosen)
    assert passed <= 10 * 100, "each of the others at most once before it"


def test_who_was_away_has_no_credit() -> None:
    order = FairOrder()
    order.add(1)
    for _ in range(100):
        order.charge(1, 1.0)
    order.add(2)
    served = Counter[int]()
    for _ in range(20):
        tenant = order.first(lambda _: True)
        assert tenant is not None
        order.charge(tenant, 1.0)
        served[tenant] += 1
    assert abs(served[1] - served[2]) <= 1


def test_who_may_not_is_passed_over_and_keeps_its_place() -> None:
    order = FairOrder()
    order.add(1)
    order.add(2)
    assert order.first(lambda tenant: tenant != 1) == 2
    assert order.first(lambda _: False) is None
    assert order.first(lambda _: True) == 1
    order.remove(1)
    assert order.first(lambda _: True) == 2
    order.add(1)
    order.remove(2)
    assert order.first(lambda _: True) == 1
