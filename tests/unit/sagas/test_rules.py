"""What follows on what in a saga: pure transitions."""

from __future__ import annotations

from app.kit.retry import RetryPolicy
from app.sagas.rules import Answer, Continue, Done, Failed, Position, Wait, on_error, transition
from app.vocabulary.states import SagaState

POLICY = RetryPolicy(attempts=3, backoff_base=1.0, backoff_cap=10.0)
START = Position(SagaState.RUNNING, 0, {})


def walk(*answers: Answer, steps: int = 3, at: Position = START) -> Position:
    for answer in answers:
        assert not at.finished
        at = transition(at, answer, steps=steps)
    return at


def test_steps_come_one_after_the_other_and_the_last_one_ends_it() -> None:
    assert walk(Done()).step == 1
    assert walk(Done(), Done()).step == 2
    end = walk(Done(), Done(), Done())
    assert (end.state, end.finished) == (SagaState.DONE, True)


def test_what_a_step_remembers_goes_on_to_the_next() -> None:
    assert walk(Continue({"n": 1})).data == {"n": 1}
    assert walk(Continue({"n": 1}), Done()).data == {"n": 1}
    assert walk(Continue({"n": 1}), Done({"n": 2}), Done()).data == {"n": 2}


def test_a_piece_keeps_the_step_and_is_followed_at_once() -> None:
    at = walk(Done(), Continue({"n": 1}))
    assert (at.step, at.wait, at.state) == (1, 0.0, SagaState.RUNNING)


def test_waiting_costs_no_attempt() -> None:
    at = walk(*[Wait(5.0)] * 100)
    assert (at.step, at.wait, at.attempts, at.state) == (0, 5.0, 0, SagaState.RUNNING)
    assert walk(Wait(5.0), Done()).wait == 0.0


def test_a_step_that_fails_is_undone_itself_and_then_those_before_it() -> None:
    """It may have committed a piece already."""
    at = walk(Done(), Done(), Failed("no"))
    undone = []
    while not at.finished:
        assert at.state is SagaState.COMPENSATING
        undone.append(at.step)
        at = transition(at, Done(), steps=3)
    assert undone == [2, 1, 0]
    assert (at.state, at.error) == (SagaState.COMPENSATED, "no")


def test_undoing_may_take_several_pieces_and_waits() -> None:
    at = walk(Done(), Failed("no"), Continue({"n": 1}), Wait(2.0))
    assert (at.state, at.step, at.wait, at.data) == (SagaState.COMPENSATING, 1, 2.0, {"n": 1})


def test_what_cannot_be_undone_waits_for_a_human() -> None:
    at = walk(Done(), Failed("no"), Failed("never"))
    assert at.state is SagaState.FAILED
    assert at.finished
    assert at.error is not None
    assert "no" in at.error
    assert "never" in at.error


def test_errors_are_tried_again_later_and_not_for_ever() -> None:
    at = on_error(START, "boom", POLICY, lambda: 1.0)
    assert (at.state, at.attempts, at.wait, at.error) == (SagaState.RUNNING, 1, 1.0, "boom")
    at = on_error(at, "boom", POLICY, lambda: 1.0)
    assert (at.attempts, at.wait) == (2, 2.0)
    at = on_error(at, "boom", POLICY, lambda: 1.0)
    assert (at.state, at.step, at.attempts, at.wait) == (SagaState.COMPENSATING, 0, 0, 0.0)
    assert at.error == "stopped after 3 attempts; the last: boom"


def test_errors_count_anew_after_every_success() -> None:
    at = on_error(on_error(START, "boom", POLICY, lambda: 0.0), "boom", POLICY, lambda: 0.0)
    assert transition(at, Continue({}), steps=3).attempts == 0
    assert transition(at, Done(), steps=3).attempts == 0


def test_an_undoing_that_fails_again_and_again_waits_for_a_human() -> None:
    at = walk(Failed("no"))
    for _ in range(3):
        at = on_error(at, "boom", POLICY, lambda: 0.0)
    assert at.state is SagaState.FAILED
