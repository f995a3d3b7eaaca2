"""The rules of a circuit that tenants share: no tenant alone opens it, or keeps it from closing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.vocabulary.states import CircuitState
from jobs.breaker.rules import BreakerPolicy, Permit, Transition
from tests.jobs.breaker.driver import MOST_WITNESSES, POLICY, Driver, Run, on_redis


def shared_half_open(run: Run) -> Driver:
    """Opened by two tenants, and its time is over."""
    circuit = Driver(run)
    for _ in range(2):
        change = circuit.call(failed=True, tenant=1) or circuit.call(failed=True, tenant=2)
    assert change is not None
    circuit.wait_for(change)
    return circuit


def test_one_tenants_failures_never_open_what_it_shares(run: Run) -> None:
    circuit = Driver(run)
    for _ in range(200):
        assert circuit.call(failed=True, tenant=1) is None
        assert circuit.call(took=60_000, tenant=1) is None
        circuit.now += 10
    circuit.granted(2)


def test_failures_of_two_tenants_open_what_they_share(run: Run) -> None:
    circuit = Driver(run)
    told = [circuit.call(failed=True, tenant=tenant) for tenant in (1, 2, 1, 2)]
    assert [change is not None for change in told] == [False, False, False, True]
    assert circuit.rejected(3), "for everybody"


def test_slow_calls_of_two_tenants_open_what_they_share(run: Run) -> None:
    circuit = Driver(run)
    told = [circuit.call(took=2_000, tenant=tenant) for tenant in (1, 2, 1, 2)]
    assert [change is not None for change in told] == [False, False, False, True]


def test_the_loudest_counts_for_no_more_than_the_others_together(run: Run) -> None:
    """Another tenant's hiccup does not make a witness against a CRM of one who fails all the time."""
    circuit = Driver(run)
    for _ in range(50):
        assert circuit.call(failed=True, tenant=1) is None
    assert circuit.call(failed=True, tenant=2) is None
    assert circuit.call(failed=True, tenant=2) is not None, "two and two are four calls, the least that is counted"


def test_a_tenant_that_is_mostly_well_is_no_witness(run: Run) -> None:
    circuit = Driver(run)
    for number in range(100):
        assert circuit.call(failed=True, tenant=1) is None
        assert circuit.call(failed=number % 3 == 2, tenant=2) is None


def test_two_tenants_who_fail_do_not_hold_up_many_who_are_well(run: Run) -> None:
    circuit = Driver(run, BreakerPolicy())
    for _ in range(20):
        for tenant in range(1, 11):
            assert circuit.call(failed=tenant <= 2, tenant=tenant) is None


def test_evidence_leaves_with_the_window(run: Run) -> None:
    circuit = Driver(run)
    for _ in range(10):
        circuit.call(failed=True, tenant=1)
    circuit.now += 10_000
    for _ in range(3):
        assert circuit.call(failed=True, tenant=2) is None
    assert circuit.held("witness") == [2]


def test_a_shared_circuit_stays_small_however_many_tenants_fail(run: Run) -> None:
    circuit = Driver(run, BreakerPolicy(min_calls=10_000))
    for tenant in range(1, 1_000):
        circuit.call(failed=True, tenant=tenant)
    assert len(circuit.held("witness")) == MOST_WITNESSES
    assert circuit.snapshot().failures == 999


def test_a_failed_probe_of_one_tenant_leaves_the_others_their_turn(run: Run) -> None:
    circuit = shared_half_open(run)
    probe = circuit.granted(1)
    assert circuit.end(probe, failed=True) is None
    assert circuit.rejected(1) == 5_000
    for _ in range(2):
        assert circuit.end(circuit.granted(2)) is None
    change = circuit.end(circuit.granted(2))
    assert change is not None
    assert change.after is CircuitState.CLOSED


def test_failed_probes_of_two_tenants_open_it_again(run: Run) -> None:
    circuit = shared_half_open(run)
    first, second = circuit.granted(1), circuit.granted(2)
    assert circuit.end(first, failed=True) is None
    change = circuit.end(second, failed=True)
    assert change == Transition(
        name=circuit.name, before=CircuitState.HALF_OPEN, after=CircuitState.OPEN, opens=2, retry_after=10.0
    )


def test_a_tenant_has_one_probe_at_a_time(run: Run) -> None:
    circuit = shared_half_open(run)
    circuit.granted(1)
    assert circuit.rejected(1)
    circuit.granted(2)
    assert circuit.rejected(3), "there are two in all"


shared_steps = st.lists(
    st.tuples(
        st.sampled_from(["well", "fail", "fail", "slow", "hang", "wait"]), st.integers(min_value=0, max_value=20_000)
    ),
    max_size=40,
)


@on_redis
@given(shared_steps)
def test_whatever_one_tenant_does_the_others_are_never_held_back(run: Run, history: list[tuple[str, int]]) -> None:
    """From closed, and from half-open after an outage that others saw: they get through, and it closes."""
    for circuit in (Driver(run), shared_half_open(run)):
        for step, amount in history:
            circuit.now += amount if step == "wait" else 0
            answer = circuit.acquire(1)
            if isinstance(answer, Permit) and step not in ("wait", "hang"):
                circuit.end(answer, failed=step == "fail", took=60_000 if step == "slow" else 5)
            snapshot = circuit.snapshot()
            assert snapshot.state is not CircuitState.OPEN or snapshot.opens == 1
            other = circuit.acquire(2)
            if isinstance(other, Permit):
                circuit.cancel(other)
            else:
                assert circuit.held("permit")
        for _ in range(POLICY.successes):
            circuit.end(circuit.granted(2))
        assert circuit.state is CircuitState.CLOSED
