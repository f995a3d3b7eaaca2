"""The rules of the circuit breaker, without I/O: what opens it, what closes it, what counts as nothing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.domain import breaker as rules
from app.domain.breaker import Admission, BreakerPolicy, Change, CircuitState, Record
from app.settings import Settings

POLICY = BreakerPolicy(
    window=10.0,
    min_calls=4,
    failure_rate=0.5,
    slow_rate=0.75,
    slow_call=2.0,
    open=5.0,
    open_cap=60.0,
    probes=2,
    successes=3,
    permit=15.0,
)
START = 1_700_000_000_000


class Circuit:
    """A record and its clock, driven as a worker drives them."""

    def __init__(self, policy: BreakerPolicy = POLICY) -> None:
        self.policy = policy
        self.record = Record()
        self.now = START

    def admit(self, tenant: int = 0) -> Admission:
        self.record, admission = rules.admit(self.record, self.policy, self.now, tenant=tenant)
        return admission

    def end(
        self,
        admission: Admission,
        *,
        failed: bool = False,
        took: int = 10,
        jitter: float = 0.0,
        tenant: int = 0,
    ) -> Change | None:
        self.record, change = rules.report(
            self.record,
            self.policy,
            self.now,
            generation=admission.generation,
            token=admission.token,
            failed=failed,
            took=took,
            jitter=jitter,
            tenant=tenant,
        )
        return change

    def cancel(self, admission: Admission) -> None:
        self.record = rules.cancel(
            self.record, self.policy, self.now, generation=admission.generation, token=admission.token
        )

    def call(self, *, failed: bool = False, took: int = 10, tenant: int = 0) -> Change | None:
        admission = self.admit(tenant)
        assert admission.granted
        return self.end(admission, failed=failed, took=took, tenant=tenant)

    def trip(self) -> Change:
        """Fail until it opens."""
        for _ in range(100):
            change = self.call(failed=True)
            if change is not None:
                return change
        raise AssertionError("never opened")

    @property
    def state(self) -> CircuitState:
        return rules.look(self.record, self.policy, self.now).state


def half_open() -> tuple[Circuit, Admission]:
    circuit = Circuit()
    circuit.now += circuit.trip().retry
    probe = circuit.admit()
    assert probe.granted
    assert probe.changed
    return circuit, probe


def test_policy_takes_the_breaker_settings() -> None:
    settings = Settings(breaker_window=7.0, breaker_probes=5, breaker_open=2.5)
    policy = BreakerPolicy.from_settings(settings)
    assert (policy.window, policy.probes, policy.open) == (7.0, 5, 2.5)
    assert BreakerPolicy.from_settings(Settings()) == BreakerPolicy()


def test_failures_below_the_minimum_of_calls_do_not_open() -> None:
    circuit = Circuit()
    assert [circuit.call(failed=True) for _ in range(3)] == [None] * 3
    assert circuit.state is CircuitState.CLOSED


def test_rate_and_not_a_row_of_failures_opens() -> None:
    circuit = Circuit()
    for failed in (False, False, False, False, False, True, True, True, True):
        assert circuit.call(failed=failed) is None
    change = circuit.call(failed=True)
    assert change == Change(before=CircuitState.CLOSED, after=CircuitState.OPEN, opens=1, retry=5_000)


def test_failures_leave_with_the_window() -> None:
    circuit = Circuit()
    for _ in range(3):
        circuit.call(failed=True)
    circuit.now += 10_000
    assert circuit.call(failed=True) is None
    assert rules.look(circuit.record, circuit.policy, circuit.now).calls == 1


def test_slow_calls_open_though_they_succeed() -> None:
    circuit = Circuit()
    assert circuit.call(took=10) is None
    assert [circuit.call(took=2_000) for _ in range(2)] == [None, None]
    change = circuit.call(took=2_000)
    assert change is not None
    assert change.after is CircuitState.OPEN


def test_open_refuses_and_tells_the_rest_of_its_time() -> None:
    circuit = Circuit()
    circuit.trip()
    circuit.now += 1_200
    refusal = circuit.admit()
    assert not refusal.granted
    assert refusal.retry == 3_800


def test_half_open_lets_few_probes_through_and_enough_successes_close() -> None:
    circuit, first = half_open()
    second, third = circuit.admit(), circuit.admit()
    assert second.granted
    assert not second.changed
    assert not third.granted
    assert 0 < third.retry <= 1_000
    assert circuit.end(first) is None
    assert circuit.end(second) is None
    change = circuit.end(circuit.admit())
    assert change is not None
    assert change.after is CircuitState.CLOSED
    assert circuit.admit().token == 0


def test_one_failed_probe_opens_again_for_longer() -> None:
    circuit, probe = half_open()
    change = circuit.end(probe, failed=True)
    assert change == Change(before=CircuitState.HALF_OPEN, after=CircuitState.OPEN, opens=2, retry=10_000)


def test_opening_time_doubles_up_to_its_cap_and_starts_over_after_a_quiet_time_closed() -> None:
    circuit = Circuit()
    change: Change | None = circuit.trip()
    times = []
    for _ in range(6):
        assert change is not None
        times.append(change.retry)
        circuit.now += change.retry
        change = circuit.end(circuit.admit(), failed=True)
    assert times == [5_000, 10_000, 20_000, 40_000, 60_000, 60_000]
    assert change is not None
    circuit.now += change.retry
    while circuit.state is not CircuitState.CLOSED:
        circuit.end(circuit.admit())
    assert circuit.trip().retry == 60_000, "closed for no time at all: still the same trouble"
    circuit.now += 60_000
    while circuit.state is not CircuitState.CLOSED:
        circuit.end(circuit.admit())
    circuit.now += 60_000
    assert circuit.trip().retry == 5_000


@given(st.floats(min_value=0, max_value=1, exclude_max=True), st.integers(min_value=0, max_value=40))
def test_jitter_shortens_an_opening_time_by_a_fifth_at_most(jitter: float, openings: int) -> None:
    circuit = Circuit(BreakerPolicy(min_calls=1))
    circuit.record = Record(state=CircuitState.HALF_OPEN, generation=7, opens=openings)
    change = circuit.end(Admission(granted=True, state=CircuitState.HALF_OPEN, generation=7), failed=True)
    jittered = Circuit(BreakerPolicy(min_calls=1))
    jittered.record = Record(state=CircuitState.HALF_OPEN, generation=7, opens=openings)
    shorter = jittered.end(
        Admission(granted=True, state=CircuitState.HALF_OPEN, generation=7), failed=True, jitter=jitter
    )
    assert change is not None
    assert shorter is not None
    assert 0.8 * change.retry - 1 <= shorter.retry <= change.retry <= 120_000


def test_permit_of_a_dead_prober_expires() -> None:
    circuit, _ = half_open()
    assert circuit.admit().granted
    circuit.now += 14_999
    assert not circuit.admit().granted
    circuit.now += 1
    assert circuit.admit().granted


def test_called_off_probe_gives_its_permit_back_and_counts_as_nothing() -> None:
    circuit, probe = half_open()
    for _ in range(20):
        circuit.cancel(probe)
        assert circuit.state is CircuitState.HALF_OPEN
        probe = circuit.admit()
        assert probe.granted


def test_call_from_before_the_opening_is_no_probe() -> None:
    circuit = Circuit()
    late_success, late_failure = circuit.admit(), circuit.admit()
    circuit.now += circuit.trip().retry
    probe = circuit.admit()
    for _ in range(5):
        assert circuit.end(late_success) is None
    assert circuit.end(late_failure, failed=True) is None
    assert circuit.state is CircuitState.HALF_OPEN
    circuit.end(probe)
    assert circuit.record.successes == 1


def test_probe_is_counted_once_however_often_it_reports() -> None:
    circuit, probe = half_open()
    for _ in range(5):
        circuit.end(probe)
    assert circuit.state is CircuitState.HALF_OPEN


def test_late_probe_closes_nothing_but_its_failure_is_evidence() -> None:
    circuit, probe = half_open()
    circuit.now += 15_000
    circuit.end(probe)
    assert circuit.record.successes == 0
    change = circuit.end(probe, failed=True)
    assert change is not None
    assert change.after is CircuitState.OPEN


def test_slow_probes_neither_close_nor_open() -> None:
    circuit, probe = half_open()
    for _ in range(10):
        assert circuit.end(probe, took=2_000) is None
        probe = circuit.admit()
        assert probe.granted
    assert circuit.state is CircuitState.HALF_OPEN


def test_permit_from_before_the_memory_was_lost_is_harmless() -> None:
    circuit, old = half_open()
    circuit.record = Record()
    circuit.now += 1
    assert circuit.end(old, failed=True) is None
    circuit.now += circuit.trip().retry
    circuit.admit()
    assert circuit.end(old, failed=True) is None
    assert circuit.state is CircuitState.HALF_OPEN


def test_clock_set_back_does_not_hold_a_circuit_open() -> None:
    circuit = Circuit()
    circuit.trip()
    circuit.now -= 3_600_000
    assert circuit.admit().granted


def test_forced_states_hold_until_told_otherwise() -> None:
    circuit = Circuit()
    circuit.record, change = rules.force(
        circuit.record, POLICY, circuit.now, state=CircuitState.OPEN, hold=600_000
    )
    assert change is not None
    circuit.now += 599_999
    assert circuit.admit().retry == 1
    circuit.record, change = rules.force(
        circuit.record, POLICY, circuit.now, state=CircuitState.CLOSED, hold=0
    )
    assert change is not None
    assert circuit.admit().granted


# -- a circuit that tenants share --------------------------------------------------------------------------


def shared_half_open() -> Circuit:
    """Opened by two tenants, and its time is over."""
    circuit = Circuit()
    for _ in range(2):
        change = circuit.call(failed=True, tenant=1) or circuit.call(failed=True, tenant=2)
    assert change is not None
    circuit.now += change.retry
    return circuit


def test_one_tenants_failures_never_open_what_it_shares() -> None:
    circuit = Circuit()
    for _ in range(200):
        assert circuit.call(failed=True, tenant=1) is None
        assert circuit.call(took=60_000, tenant=1) is None
        circuit.now += 10
    assert circuit.admit(2).granted


def test_failures_of_two_tenants_open_what_they_share() -> None:
    circuit = Circuit()
    told = [circuit.call(failed=True, tenant=tenant) for tenant in (1, 2, 1, 2)]
    assert [change is not None for change in told] == [False, False, False, True]
    assert not circuit.admit(3).granted, "for everybody"


def test_slow_calls_of_two_tenants_open_what_they_share() -> None:
    circuit = Circuit()
    told = [circuit.call(took=2_000, tenant=tenant) for tenant in (1, 2, 1, 2)]
    assert [change is not None for change in told] == [False, False, False, True]


def test_the_loudest_counts_for_no_more_than_the_others_together() -> None:
    """Another tenant's hiccup does not make a witness against a CRM of one who fails all the time."""
    circuit = Circuit()
    for _ in range(50):
        assert circuit.call(failed=True, tenant=1) is None
    assert circuit.call(failed=True, tenant=2) is None
    assert circuit.call(failed=True, tenant=2) is not None, (
        "two and two are four calls, the least that is counted"
    )


def test_a_tenant_that_is_mostly_well_is_no_witness() -> None:
    circuit = Circuit()
    for number in range(100):
        assert circuit.call(failed=True, tenant=1) is None
        assert circuit.call(failed=number % 3 == 2, tenant=2) is None


def test_two_tenants_who_fail_do_not_hold_up_many_who_are_well() -> None:
    circuit = Circuit(BreakerPolicy())
    for _ in range(20):
        for tenant in range(1, 11):
            assert circuit.call(failed=tenant <= 2, tenant=tenant) is None


def test_evidence_leaves_with_the_window() -> None:
    circuit = Circuit()
    for _ in range(10):
        circuit.call(failed=True, tenant=1)
    circuit.now += 10_000
    for _ in range(3):
        assert circuit.call(failed=True, tenant=2) is None
    assert list(circuit.record.witnesses) == [2]


def test_a_shared_circuit_stays_small_however_many_tenants_fail() -> None:
    circuit = Circuit(BreakerPolicy(min_calls=10_000))
    for tenant in range(1, 1_000):
        circuit.call(failed=True, tenant=tenant)
    assert len(circuit.record.witnesses) == rules.MOST_WITNESSES
    assert rules.look(circuit.record, circuit.policy, circuit.now).failures == 999


def test_a_failed_probe_of_one_tenant_leaves_the_others_their_turn() -> None:
    circuit = shared_half_open()
    probe = circuit.admit(1)
    assert circuit.end(probe, failed=True, tenant=1) is None
    waits = circuit.admit(1)
    assert not waits.granted
    assert waits.retry == 5_000
    for _ in range(2):
        assert circuit.end(circuit.admit(2), tenant=2) is None
    change = circuit.end(circuit.admit(2), tenant=2)
    assert change is not None
    assert change.after is CircuitState.CLOSED


def test_failed_probes_of_two_tenants_open_it_again() -> None:
    circuit = shared_half_open()
    first, second = circuit.admit(1), circuit.admit(2)
    assert circuit.end(first, failed=True, tenant=1) is None
    change = circuit.end(second, failed=True, tenant=2)
    assert change == Change(before=CircuitState.HALF_OPEN, after=CircuitState.OPEN, opens=2, retry=10_000)


def test_a_tenant_has_one_probe_at_a_time() -> None:
    circuit = shared_half_open()
    assert circuit.admit(1).granted
    assert not circuit.admit(1).granted
    assert circuit.admit(2).granted
    assert not circuit.admit(3).granted, "there are two in all"


shared_steps = st.lists(
    st.tuples(
        st.sampled_from(["well", "fail", "fail", "slow", "hang", "wait"]),
        st.integers(min_value=0, max_value=20_000),
    ),
    max_size=120,
)


@given(shared_steps)
def test_whatever_one_tenant_does_the_others_are_never_held_back(history: list[tuple[str, int]]) -> None:
    """From closed, and from half-open after an outage that others saw: they get through, and it closes."""
    for circuit in (Circuit(), shared_half_open()):
        for step, amount in history:
            circuit.now += amount if step == "wait" else 0
            admission = circuit.admit(1)
            if admission.granted and step not in ("wait", "hang"):
                took = 60_000 if step == "slow" else 5
                circuit.end(admission, failed=step == "fail", took=took, tenant=1)
            assert circuit.state is not CircuitState.OPEN or circuit.record.opens == 1
            assert circuit.admit(2).granted or circuit.record.permits
            circuit.record = rules.cancel(
                circuit.record,
                circuit.policy,
                circuit.now,
                generation=circuit.record.generation,
                token=circuit.record.issued,
            )
        for _ in range(POLICY.successes):
            admission = circuit.admit(2)
            assert admission.granted
            circuit.end(admission, tenant=2)
        assert circuit.state is CircuitState.CLOSED


steps = st.lists(
    st.tuples(
        st.sampled_from(["admit", "succeed", "fail", "slow", "cancel", "wait", "die"]),
        st.integers(min_value=0, max_value=20_000),
    ),
    max_size=120,
)


@given(steps)
def test_any_history_keeps_probes_few_and_never_wedges(history: list[tuple[str, int]]) -> None:
    circuit = Circuit()
    held: list[Admission] = []
    for step, amount in history:
        if step == "wait":
            circuit.now += amount
        elif step == "admit":
            admission = circuit.admit()
            if admission.granted:
                held.append(admission)
            else:
                assert 0 < admission.retry <= 60_000
        elif held:
            admission = held.pop(amount % len(held))
            if step == "cancel":
                circuit.cancel(admission)
            elif step != "die":
                circuit.end(admission, failed=step == "fail", took=3_000 if step == "slow" else 5)
        assert len(circuit.record.permits) <= POLICY.probes
    circuit.now += 60_000
    assert circuit.admit().granted
