"""The way to one destination: its adapter, behind the circuit of the CRM and that of the tenant's connection."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from jobs.breaker import Breaker, Permits, Refused, Transition
from jobs.crm.port import Crm, Health, ReadBack, Reply

log = structlog.get_logger()

Answer = TypeVar("Answer", Reply, ReadBack)


class Line:
    """Calls a CRM with the leave of both circuits, and tells them how it went."""

    def __init__(self, crm: Crm, breaker: Breaker, *, crm_circuit: str, connection_circuit: str) -> None:
        self.crm = crm
        self._breaker = breaker
        self._circuits = (crm_circuit, connection_circuit)
        self._trouble = ""
        """What the last call that counted against a circuit met."""

    async def admit(self) -> Permits | Refused:
        """Leave for one call, to be given to `call` or back to `release`."""
        admitted = await self._breaker.admit_all(self._circuits)
        for transition in admitted.transitions:
            _tell(transition)
        return admitted

    def explain(self, refused: Refused) -> str:
        """Why no call is made now, for humans."""
        whom = "the CRM" if refused.name == self._circuits[0] else "this tenant's connection to the CRM"
        why = f"; the last call: {self._trouble}" if self._trouble else ""
        return f"calls are held back, the circuit of {whom} is {refused.state}{why}"

    async def release(self, permits: Permits) -> None:
        for permit in permits.permits:
            await self._breaker.cancel(permit)

    async def call(self, ask: Callable[[], Awaitable[Answer]], permits: Permits | None) -> Answer | Refused:
        """Make one call. A call that is called off counts as nothing."""
        if permits is None:
            admitted = await self.admit()
            if isinstance(admitted, Refused):
                return admitted
            permits = admitted
        try:
            answer = await ask()
        except BaseException:
            await self.release(permits)
            raise
        if answer.health is not Health.WELL:
            outcomes = answer.outcomes if isinstance(answer, Reply) else []
            self._trouble = answer.detail or next((o.detail for o in outcomes if o.detail), "")
        crm, connection = permits.permits
        if answer.health is Health.CRM_FAULT:
            _tell(await self._breaker.fail(crm, answer.seconds))
            # A CRM that does not answer says nothing about this tenant's credentials.
            await self._breaker.cancel(connection)
        else:
            _tell(await self._breaker.succeed(crm, answer.seconds))
            if answer.health is Health.CONNECTION_FAULT:
                _tell(await self._breaker.fail(connection, answer.seconds))
            else:
                _tell(await self._breaker.succeed(connection, answer.seconds))
        return answer


def _tell(transition: Transition | None) -> None:
    if transition is not None:
        log.warning(
            "circuit_changed",
            circuit=transition.name,
            before=transition.before,
            after=transition.after,
            opens=transition.opens,
            retry_after=round(transition.retry_after, 3),
        )
