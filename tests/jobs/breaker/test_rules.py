"""The rules of the circuit breaker, in Redis at pinned times: what opens it, what closes it, what counts as nothing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.settings import Settings
from app.vocabulary.states import CircuitState
from jobs.breaker.rules import BreakerPolicy, Permit, Transition
from tests.jobs.breaker.driver import POLICY, START, Driver, Run, on_redis


def half_open(run: Run) -> tuple[Driver, Permit]:
    circuit = Driver(run)
    circuit.wait_for(circuit.trip())
    probe = circuit.granted()
    assert probe.transition is not None
    return circuit, probe


def test_policy_takes_the_breaker_settings(run: Run) -> None:
    settings = Settings(breaker_window=7.0, breaker_probes=5, breaker_open=2.5)
    policy = BreakerPolicy.from_settings(settings)
    assert (policy.window, policy.probes, policy.open) == (7.0, 5, 2.5)
    assert BreakerPolicy.from_settings(Settings()) == BreakerPolicy()


def test_failures_below_the_minimum_of_calls_do_not_open(run: Run) -> None:
    circuit = Driver(run)
    assert [circuit.call(failed=True) for _ in range(3)] == [None] * 3
    assert circuit.state is CircuitState.CLOSED


def test_rate_and_not_a_row_of_failures_opens(run: Run) -> None:
    circuit = Driver(run)
    for failed in (False, False, False, False, False, True, True, True, True):
        assert circuit.call(failed=failed) is None
    change = circuit.call(failed=True)
    assert change == Transition(
        name=circuit.name, before=CircuitState.CLOSED, after=CircuitState.OPEN, opens=1, retry_after=5.0
    )


def test_failures_leave_with_the_window(run: Run) -> None:
    circuit = Driver(run)
    for _ in range(3):
        circuit.call(failed=True)
    circuit.now += 10_000
    assert circuit.call(failed=True) is None
    assert circuit.snapshot().calls == 1


def test_slow_calls_open_though_they_succeed(run: Run) -> None:
    circuit = Driver(run)
    assert circuit.call(took=10) is None
    assert [circuit.call(took=2_000) for _ in range(2)] == [None, None]
    change = circuit.call(took=2_000)
    assert change is not None
    assert change.after is CircuitState.OPEN


def test_open_refuses_and_tells_the_rest_of_its_time(run: Run) -> None:
    circuit = Driver(run)
    circuit.trip()
    circuit.now += 1_200
    assert circuit.rejected() == 3_800


def test_half_open_lets_few_probes_through_and_enough_successes_close(run: Run) -> None:
    circuit, first = half_open(run)
    second = circuit.granted()
    assert second.transition is None
    assert 0 < circuit.rejected() <= 1_000
    assert circuit.end(first) is None
    assert circuit.end(second) is None
    change = circuit.end(circuit.granted())
    assert change is not None
    assert change.after is CircuitState.CLOSED
    assert circuit.granted().token == 0


def test_where_nothing_waits_one_success_closes(run: Run) -> None:
    circuit, first = half_open(run)
    second = circuit.granted()
    assert circuit.settle() is None, "nobody knows yet how its probes end"
    circuit.end(first)
    assert circuit.settle() is None, "one is still under way"
    circuit.cancel(second)
    assert circuit.settle() == Transition(
        name=circuit.name, before=CircuitState.HALF_OPEN, after=CircuitState.CLOSED, opens=1, retry_after=0.0
    )
    assert circuit.settle() is None
    assert circuit.trip().opens == 2, "so soon it is still the same trouble"
    assert circuit.settle() is None


def test_a_slow_success_does_not_close_either(run: Run) -> None:
    circuit, probe = half_open(run)
    circuit.end(probe, took=2_000)
    assert circuit.settle() is None
    assert circuit.state is CircuitState.HALF_OPEN


def test_one_failed_probe_opens_again_for_longer(run: Run) -> None:
    circuit, probe = half_open(run)
    change = circuit.end(probe, failed=True)
    assert change == Transition(
        name=circuit.name, before=CircuitState.HALF_OPEN, after=CircuitState.OPEN, opens=2, retry_after=10.0
    )


def test_opening_time_doubles_up_to_its_cap_and_starts_over_after_a_quiet_time_closed(run: Run) -> None:
    circuit = Driver(run)
    change: Transition | None = circuit.trip()
    times = []
    for _ in range(6):
        assert change is not None
        times.append(round(change.retry_after * 1_000))
        circuit.wait_for(change)
        change = circuit.end(circuit.granted(), failed=True)
    assert times == [5_000, 10_000, 20_000, 40_000, 60_000, 60_000]
    assert change is not None
    circuit.wait_for(change)
    while circuit.state is not CircuitState.CLOSED:
        circuit.end(circuit.granted())
    assert circuit.trip().retry_after == 60, "closed for no time at all: still the same trouble"
    circuit.now += 60_000
    while circuit.state is not CircuitState.CLOSED:
        circuit.end(circuit.granted())
    circuit.now += 60_000
    assert circuit.trip().retry_after == 5


@on_redis
@given(st.floats(min_value=0, max_value=1, exclude_max=True), st.integers(min_value=0, max_value=40))
def test_jitter_shortens_an_opening_time_by_a_fifth_at_most(run: Run, jitter: float, openings: int) -> None:
    times = []
    for chance in (0.0, jitter):
        circuit = Driver(run, BreakerPolicy(min_calls=1))
        circuit.store(state="half_open", generation=START, opens=openings)
        circuit.jitter = chance
        change = circuit.end(circuit.granted(), failed=True)
        assert change is not None
        times.append(change.retry_after)
    longest, shorter = times
    assert 0.8 * longest - 0.001 <= shorter <= longest <= 120


def test_permit_of_a_dead_prober_expires(run: Run) -> None:
    circuit, _ = half_open(run)
    circuit.granted()
    circuit.now += 14_999
    assert circuit.rejected()
    circuit.now += 1
    circuit.granted()


def test_called_off_probe_gives_its_permit_back_and_counts_as_nothing(run: Run) -> None:
    circuit, probe = half_open(run)
    for _ in range(20):
        circuit.cancel(probe)
        assert circuit.state is CircuitState.HALF_OPEN
        probe = circuit.granted()


def test_call_from_before_the_opening_is_no_probe(run: Run) -> None:
    circuit = Driver(run)
    late_success, late_failure = circuit.granted(), circuit.granted()
    circuit.wait_for(circuit.trip())
    probe = circuit.granted()
    for _ in range(5):
        assert circuit.end(late_success) is None
    assert circuit.end(late_failure, failed=True) is None
    assert circuit.state is CircuitState.HALF_OPEN
    circuit.end(probe)
    assert circuit.stored()["successes"] == "1"


def test_probe_is_counted_once_however_often_it_reports(run: Run) -> None:
    circuit, probe = half_open(run)
    for _ in range(5):
        circuit.end(probe)
    assert circuit.state is CircuitState.HALF_OPEN


def test_late_probe_closes_nothing_but_its_failure_is_evidence(run: Run) -> None:
    circuit, probe = half_open(run)
    circuit.now += 15_000
    circuit.end(probe)
    assert circuit.stored()["successes"] == "0"
    change = circuit.end(probe, failed=True)
    assert change is not None
    assert change.after is CircuitState.OPEN


def test_slow_probes_neither_close_nor_open(run: Run) -> None:
    circuit, probe = half_open(run)
    for _ in range(10):
        assert circuit.end(probe, took=2_000) is None
        probe = circuit.granted()
    assert circuit.state is CircuitState.HALF_OPEN


def test_permit_from_before_the_memory_was_lost_is_harmless(run: Run) -> None:
    circuit, old = half_open(run)
    circuit.forget()
    circuit.now += 1
    assert circuit.end(old, failed=True) is None
    circuit.wait_for(circuit.trip())
    circuit.granted()
    assert circuit.end(old, failed=True) is None
    assert circuit.state is CircuitState.HALF_OPEN


def test_clock_set_back_does_not_hold_a_circuit_open(run: Run) -> None:
    circuit = Driver(run)
    circuit.trip()
    circuit.now -= 3_600_000
    circuit.granted()


def test_forced_states_hold_until_told_otherwise(run: Run) -> None:
    circuit = Driver(run)
    change = circuit.force(CircuitState.OPEN, 600.0)
    assert change is not None
    circuit.now += 599_999
    assert circuit.rejected() == 1
    change = circuit.force(CircuitState.CLOSED)
    assert change is not None
    circuit.granted()


steps = st.lists(
    st.tuples(
        st.sampled_from(["acquire", "succeed", "fail", "slow", "cancel", "wait", "die"]),
        st.integers(min_value=0, max_value=20_000),
    ),
    max_size=40,
)


@on_redis
@given(steps)
def test_any_history_keeps_probes_few_and_never_wedges(run: Run, history: list[tuple[str, int]]) -> None:
    circuit = Driver(run)
    held: list[Permit] = []
    for step, amount in history:
        if step == "wait":
            circuit.now += amount
        elif step == "acquire":
            answer = circuit.acquire()
            if isinstance(answer, Permit):
                held.append(answer)
            else:
                assert 0 < answer.retry_after <= 60
        elif held:
            permit = held.pop(amount % len(held))
            if step == "cancel":
                circuit.cancel(permit)
            elif step != "die":
                circuit.end(permit, failed=step == "fail", took=3_000 if step == "slow" else 5)
        assert len(circuit.held("permit")) <= POLICY.probes
    circuit.now += 60_000
    circuit.granted()
