"""Sagas: steps that are done one after the other, each a transaction of its own, and undone in reverse if one fails.

Pure transitions. A step may commit a piece and ask to go on (`Continue`), so the step that failed may have left
something too: compensation begins with that very step, which may be half done or not at all.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from app.kit import retry
from app.kit.retry import RetryPolicy
from app.vocabulary.states import SagaState

Data = Mapping[str, Any]
"""What a workflow must remember between two transactions; JSON."""


class Done(msgspec.Struct, frozen=True):
    """The step is done. `data` replaces what was remembered, unless it is `None`."""

    data: Data | None = None
    audit_detail: Data = {}
    """For the audit log."""


class Continue(msgspec.Struct, frozen=True):
    """A piece of the step is done, and more of it can be done right away."""

    data: Data


class Wait(msgspec.Struct, frozen=True):
    """What the step needs is not there yet: look again in so many seconds. Costs no attempt."""

    seconds: float


class Failed(msgspec.Struct, frozen=True):
    """It cannot be done, however often it is tried; the reason is for people to read."""

    reason: str


Answer = Done | Continue | Wait | Failed


class Position(msgspec.Struct, frozen=True):
    """The state of a saga: the step that is done, or undone, next."""

    state: SagaState
    step: int
    data: Data
    attempts: int = 0
    """Of this step that ended in an error."""
    wait: float = 0.0
    """Seconds before it is worth looking again."""
    error: str | None = None
    """The last one."""

    @property
    def finished(self) -> bool:
        return self.state not in _UNFINISHED


_UNFINISHED: Final = (SagaState.RUNNING, SagaState.COMPENSATING)


def transition(at: Position, answer: Answer, *, steps: int) -> Position:
    """The position after the answer of a step of a saga with so many steps."""
    if isinstance(answer, Wait):
        return _move(at, wait=answer.seconds)
    if isinstance(answer, Continue):
        return _move(at, data=answer.data)
    if isinstance(answer, Failed):
        return _fail(at, answer.reason)
    data = at.data if answer.data is None else answer.data
    if at.state is SagaState.COMPENSATING:
        if at.step == 0:
            return _move(at, state=SagaState.COMPENSATED, data=data)
        return _move(at, step=at.step - 1, data=data)
    if at.step + 1 >= steps:
        return _move(at, state=SagaState.DONE, data=data)
    return _move(at, step=at.step + 1, data=data)


def on_error(at: Position, error: str, policy: RetryPolicy, rng: Callable[[], float]) -> Position:
    """The position after an unexpected error of the step: another try later, but not for ever."""
    attempts = at.attempts + 1
    if attempts >= policy.attempts:
        return _fail(at, f"stopped after {attempts} attempts; the last: {error}")
    wait = retry.next_delay(attempts, policy, rng)
    return msgspec.structs.replace(at, attempts=attempts, wait=wait, error=error)


def _fail(at: Position, reason: str) -> Position:
    if at.state is SagaState.COMPENSATING:
        why = f"{at.error}; and it cannot be undone: {reason}" if at.error else reason
        return _move(at, state=SagaState.FAILED, error=why)
    return _move(at, state=SagaState.COMPENSATING, error=reason)


def _move(at: Position, **changes: Any) -> Position:
    """The step ended without an error: attempts count anew."""
    return msgspec.structs.replace(at, **({"attempts": 0, "wait": 0.0} | changes))
