"""The runner of sagas, on a workflow of the tests' own: order, errors, crashes, several at a time."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from typing import Any

import asyncpg
import msgspec
import pytest

import jobs.sagas.runner
from app.errors import NotFound
from app.sagas import queries
from app.sagas.rules import Answer, Continue, Done, Failed, Wait
from app.undo import failed_sagas
from jobs.sagas.runner import Runner, Step, StepContext
from tests.db.conftest import Desk
from tests.db.sagas.saga_rig import drive, hasten, runner_of

SUBJECT = uuid.UUID("00000000-0000-4000-8000-000000000001")


class Diary:
    """A workflow that writes down what it does, in the transaction in which it does it."""

    name = "diary"

    def __init__(self, **scripts: Sequence[Any]) -> None:
        """Scripts by step: what `do` answers turn by turn, an exception is raised; it ends with Done."""
        self._scripts = {name: list(answers) for name, answers in scripts.items()}
        self.after: list[str] = []
        self.steps = tuple(Step(name, self._make(name), self._make(f"undo_{name}")) for name in ("a", "b", "c"))

    def _make(self, name: str) -> Any:
        async def work(context: StepContext) -> Answer:
            script = self._scripts.get(name, [])
            answer = script.pop(0) if script else Done()
            await context.connection.execute(
                "INSERT INTO audit_log (tenant_id, actor, action, subject) VALUES ($1, 'diary', $2, 'x')",
                context.tenant_id,
                name,
            )
            context.after_commit.append(lambda: self.after.append(name))
            if isinstance(answer, Exception):
                raise answer
            return answer

        return work


async def begin(desk: Desk, subject: uuid.UUID = SUBJECT) -> uuid.UUID:
    saga_id = uuid.uuid4()
    async with desk.database.connection() as connection:
        await queries.begin(connection, desk.tenant_id, saga_id, workflow="diary", subject=subject, actor="somebody")
    return saga_id


async def diary(desk: Desk) -> list[str]:
    rows = await desk.rows("SELECT action FROM audit_log WHERE actor = 'diary' ORDER BY audit_id")
    return [row["action"] for row in rows]


async def saga(desk: Desk) -> dict[str, Any]:
    (row,) = await desk.rows("SELECT * FROM sagas")
    return row


async def test_steps_are_done_in_order_and_each_is_in_the_audit_log(desk: Desk) -> None:
    await begin(desk)
    work = Diary(b=[Continue({"n": 1}), Continue({"n": 2})])
    await drive(desk, runner_of(desk, [work]))
    assert await diary(desk) == ["a", "b", "b", "b", "c"] == work.after
    row = await saga(desk)
    assert (row["state"], msgspec.json.decode(row["data"])) == ("done", {"n": 2})
    assert row["finished_at"] is not None
    told = await desk.rows("SELECT action, actor, subject FROM audit_log WHERE actor = 'somebody' ORDER BY audit_id")
    assert [row["action"] for row in told] == ["diary.a", "diary.b", "diary.c"]
    assert {(row["actor"], row["subject"]) for row in told} == {("somebody", f"job:{SUBJECT}")}


async def test_a_failed_step_is_undone_and_those_before_it_in_reverse(desk: Desk) -> None:
    await begin(desk)
    await drive(desk, runner_of(desk, [Diary(c=[Failed("no such luck")])]))
    assert await diary(desk) == ["a", "b", "c", "undo_c", "undo_b", "undo_a"]
    row = await saga(desk)
    assert (row["state"], row["error"]) == ("compensated", "no such luck")


async def test_what_cannot_be_undone_ends_failed_and_says_why(desk: Desk) -> None:
    await begin(desk)
    await drive(desk, runner_of(desk, [Diary(b=[Failed("no")], undo_a=[Failed("never")])]))
    assert await diary(desk) == ["a", "b", "undo_b", "undo_a"]
    row = await saga(desk)
    assert row["state"] == "failed"
    assert "never" in row["error"]
    (told,) = await desk.rows("SELECT detail FROM audit_log WHERE action = 'diary.a.compensate.failed'")
    assert msgspec.json.decode(told["detail"]) == {"reason": "never", "saga": "failed"}


async def test_a_saga_that_failed_goes_on_where_it_failed(desk: Desk) -> None:
    saga_id = await begin(desk)
    runner = runner_of(desk, [Diary(b=[Failed("no")], undo_b=[Failed("not yet")])])
    await drive(desk, runner)
    assert (await saga(desk))["state"] == "failed"
    await failed_sagas.retry(desk.database, desk.tenant_id, saga_id, actor="operator")
    await drive(desk, runner)
    assert await diary(desk) == ["a", "b", "undo_b", "undo_b", "undo_a"]
    assert (await saga(desk))["state"] == "compensated"
    with pytest.raises(NotFound):
        await failed_sagas.retry(desk.database, desk.tenant_id, saga_id, actor="operator")


async def test_an_error_undoes_its_turn_and_is_tried_again_later(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the turn is left, and what was to be done after its commit is not done."""
    for name in ("_BACKOFF_BASE", "_BACKOFF_CAP"):  # "later" is not before the test says so
        monkeypatch.setattr(jobs.sagas.runner, name, 10_000.0)
    await begin(desk)
    work = Diary(a=[ValueError("boom")])
    runner = runner_of(desk, [work], random=lambda: 1.0)
    await drive(desk, runner)
    row = await saga(desk)
    assert (row["step"], row["attempts"], row["state"], row["error"]) == (0, 1, "running", "ValueError: boom")
    assert await diary(desk) == [] == work.after
    await hasten(desk)
    await drive(desk, runner)
    assert await diary(desk) == ["a", "b", "c"]
    assert (await saga(desk))["state"] == "done"


async def test_errors_end_in_undoing(desk: Desk) -> None:
    await begin(desk)
    runner = runner_of(desk, [Diary(b=[ValueError("boom")] * 3)], saga_attempts=3)
    for _ in range(4):
        await drive(desk, runner)
        await hasten(desk)
    assert await diary(desk) == ["a", "undo_b", "undo_a"]
    row = await saga(desk)
    assert row["state"] == "compensated"
    assert "boom" in row["error"]


async def test_locks_that_others_hold_cost_no_attempt(desk: Desk) -> None:
    await begin(desk)
    runner = runner_of(desk, [Diary(a=[asyncpg.LockNotAvailableError("busy")] * 50)], saga_attempts=2)
    for _ in range(5):
        await hasten(desk)
        await drive(desk, runner)
    row = await saga(desk)
    assert (row["state"], row["step"], row["attempts"]) == ("running", 0, 0)


async def test_a_deadlock_is_tried_again_at_once(desk: Desk) -> None:
    await begin(desk)
    await drive(desk, runner_of(desk, [Diary(a=[asyncpg.DeadlockDetectedError("x")] * 2)]))
    assert (await saga(desk))["state"] == "done"


async def test_waiting_puts_it_off(desk: Desk) -> None:
    await begin(desk)
    runner = runner_of(desk, [Diary(a=[Wait(60.0)])])
    assert await drive(desk, runner) == 1
    assert (await saga(desk))["finished_at"] is None
    await hasten(desk)
    await drive(desk, runner)
    assert (await saga(desk))["state"] == "done"


async def test_a_runner_that_dies_in_a_step_leaves_it_to_the_next(desk: Desk) -> None:
    """Its connection goes with it, and its transaction with that."""
    saga_id = await begin(desk)
    work, begun = Diary(), asyncio.Event()

    async def hang(context: StepContext) -> Answer:
        await context.connection.execute(
            "INSERT INTO audit_log (tenant_id, actor, action, subject) VALUES ($1, 'diary', 'half', 'x')",
            context.tenant_id,
        )
        begun.set()
        await asyncio.sleep(60)
        return Done()

    work.steps = (work.steps[0], Step("b", hang, hang), work.steps[2])
    dying = runner_of(desk, [work])
    await dying.advance(desk.tenant_id, saga_id)
    task = asyncio.create_task(dying.advance(desk.tenant_id, saga_id))
    await asyncio.wait_for(begun.wait(), 45)
    other = runner_of(desk, [Diary()])
    assert await other.advance(desk.tenant_id, saga_id) is None  # in other hands
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await drive(desk, other)
    assert await diary(desk) == ["a", "b", "c"]


async def test_two_runners_never_do_a_turn_twice(desk: Desk) -> None:
    for n in range(10):
        await begin(desk, uuid.UUID(int=n))
    scripts = [Continue({"n": n}) for n in range(20)]
    works = [Diary(), Diary()]
    for work in works:
        work._scripts["b"] = list(scripts) * 10
    # Each saga's own count tells when b is over.

    async def count(context: StepContext) -> Answer:
        n = context.data.get("n", 0)
        await context.connection.execute(
            "INSERT INTO audit_log (tenant_id, actor, action, subject) VALUES ($1, 'diary', $2, $3)",
            context.tenant_id,
            f"b{n}",
            str(context.saga.subject),
        )
        return Continue({"n": n + 1}) if n < 20 else Done()

    runners: list[Runner] = []
    for work in works:
        work.steps = (work.steps[0], Step("b", count, count), work.steps[2])
        runners.append(runner_of(desk, [work], saga_interval=0.05))
    tasks = [asyncio.create_task(runner.run()) for runner in runners]
    async with asyncio.timeout(30):
        while await desk.rows("SELECT FROM sagas WHERE finished_at IS NULL"):
            await asyncio.sleep(0.05)
    for runner in runners:
        runner.stop()
    await asyncio.gather(*tasks)
    twice = await desk.rows(
        "SELECT action, subject, count(*) FROM audit_log WHERE action LIKE 'b%' AND actor = 'diary' "
        "GROUP BY action, subject HAVING count(*) <> 1"
    )
    assert twice == []
    (made,) = await desk.rows("SELECT count(*)::int AS n FROM audit_log WHERE action LIKE 'b%' AND actor = 'diary'")
    assert made["n"] == 10 * 21


async def test_a_workflow_that_this_release_does_not_know_waits_for_one_that_does(desk: Desk) -> None:
    await begin(desk)
    await drive(desk, runner_of(desk, []))
    row = await saga(desk)
    assert (row["state"], row["attempts"]) == ("running", 0)
    await hasten(desk)
    await drive(desk, runner_of(desk, [Diary()]))
    assert (await saga(desk))["state"] == "done"


async def test_there_is_one_saga_of_a_workflow_for_a_subject(desk: Desk) -> None:
    async with desk.database.connection() as connection:
        made = [
            await queries.begin(connection, desk.tenant_id, uuid.uuid4(), workflow="diary", subject=SUBJECT, actor="k")
            for _ in range(2)
        ]
    assert made == [True, False]


pytestmark = pytest.mark.timeout(60)
