"""The stand-in as an instrument: bounded faults, evidence that outlives it, and a command line process."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from app.sandbox import KINDS
from app.vocabulary.states import EffectState
from jobs.crm import ADAPTERS
from jobs.crm.port import Crm, Seen, Timeouts
from tests.contract.conftest import WITH_STAND_IN, Connect, Sandbox, contact, contacts, told, with_token
from tests.types import CONTACTS

OK, UNKNOWN, RETRY = EffectState.OK, EffectState.UNKNOWN, EffectState.RETRY


@pytest.fixture(params=WITH_STAND_IN)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def states(crm: Crm, times: int) -> list[EffectState]:
    return [(await crm.push([contact("c0")], told("r"))).outcomes[0].state for _ in range(times)]


async def test_a_fault_strikes_as_often_as_told(crm: Crm, sandbox: Sandbox) -> None:
    await sandbox.faults(status={"code": 503, "times": 2})
    assert await states(crm, 4) == [RETRY, RETRY, OK, OK]
    assert (await sandbox.get("faults"))["faults"] == {}


async def test_a_fault_ends_by_itself(crm: Crm, sandbox: Sandbox) -> None:
    await sandbox.faults(status={"code": 503, "seconds": 0.3})
    assert await states(crm, 1) == [RETRY]
    shown = (await sandbox.get("faults"))["faults"]["status"]
    assert (shown["code"], shown["applied"]) == (503, 1)
    assert 0 < shown["seconds_left"] <= 0.3
    await asyncio.sleep(0.35)
    assert await states(crm, 1) == [OK]


async def test_the_same_seed_strikes_at_the_same_calls(crm: Crm, sandbox: Sandbox) -> None:
    runs = []
    for _ in range(2):
        await sandbox.faults(status={"code": 503, "probability": 0.5, "seed": 7})
        runs.append(await states(crm, 20))
    assert runs[0] == runs[1]
    assert {OK, RETRY} == set(runs[0])


async def test_late_work_arrives_after_the_caller_gave_up(connect: Connect, sandbox: Sandbox) -> None:
    """The trap behind "absent is not proof": the first look finds nothing, the second does."""
    crm = connect(timeouts=Timeouts(connect=0.2, total=0.3))
    await sandbox.faults(slow={"latency": 0.7, "when": "before", "on": "write"})
    assert await states(crm, 1) == [UNKNOWN]
    assert (await crm.read_back([contact("c0")], told("r"))).seen == {"c0": Seen.ABSENT}
    await asyncio.sleep(0.6)
    assert (await crm.read_back([contact("c0")], told("r"))).seen == {"c0": Seen.MATCHES}


@pytest.mark.parametrize(
    "faults",
    [
        {"earthquake": {}},
        {"slow": {}},
        {"slow": {"latency": -1}},
        {"status": {"code": 200}},
        {"status": {"kode": 500}},
        {"down": {"times": 0}},
        {"down": {"probability": 2}},
        {"rate_limit": {"policyName": "WEEKLY"}},
        {"refuse": {}},
        {"refuse": {"seconds": 1, "times": 1}},
        {"lock": {}, "slow": {"latency": "much"}},
        ["down"],
    ],
    ids=str,
)
async def test_a_fault_that_makes_no_sense_is_refused_and_changes_nothing(sandbox: Sandbox, faults: Any) -> None:
    await sandbox.faults(lock={"times": 1})
    async with sandbox.session.put(f"{sandbox.url}/__sandbox__/faults", json=faults) as response:
        assert response.status == 400
        assert (await response.json())["error"]
    assert list((await sandbox.get("faults"))["faults"]) == ["lock"]


async def test_one_fault_is_set_and_cleared_beside_the_others(sandbox: Sandbox) -> None:
    await sandbox.faults(lock={})
    base = f"{sandbox.url}/__sandbox__/faults"
    async with sandbox.session.put(f"{base}/slow", json={"latency": 1}) as response:
        assert set((await response.json())["faults"]) == {"lock", "slow"}
    async with sandbox.session.delete(f"{base}/lock") as response:
        assert set((await response.json())["faults"]) == {"slow"}
    async with sandbox.session.delete(base) as response:
        assert (await response.json())["faults"] == {}


async def test_reset_forgets_what_it_is_told_to(crm: Crm, sandbox: Sandbox) -> None:
    await crm.push(contacts(3), told("r"))
    reset = f"{sandbox.url}/__sandbox__/reset"
    async with sandbox.session.post(f"{reset}?only=ledger,concurrency") as response:
        assert response.status == 200
    assert (await sandbox.get("ledger"))["total"] == 0
    assert (await sandbox.get("calls"))["max_concurrent"] == 0
    assert (await sandbox.get("contacts"))["total"] == 3
    async with sandbox.session.post(reset) as response:
        assert response.status == 200
    assert (await sandbox.get("contacts"))["total"] == 0


async def test_the_ledger_can_be_read_from_where_one_left_off(crm: Crm, sandbox: Sandbox) -> None:
    await crm.push(contacts(3), told("r"))
    await crm.push([contact("c1", phone="2")], told("r"))

    later = await sandbox.get("ledger?since=3")
    assert later["total"] == 4
    [effect] = later["effects"]
    assert (effect["seq"], effect["key"], effect["created"], effect["changed"]) == (4, "c1", False, True)


def start(kind: str, path: Path) -> tuple[subprocess.Popen[str], str]:
    script = (
        "import sys; from pathlib import Path; from app.sandbox import run; "
        "run(sys.argv[2], ledger_path=Path(sys.argv[1]), fields=['*'], announce=lambda url: print(url, flush=True))"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(path), kind], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


async def test_a_killed_sandbox_knows_all_again(tmp_path: Path, session: aiohttp.ClientSession, kind: str) -> None:
    """The answer to the last call was dropped and the process killed: the effect is on disk all the same."""
    path = tmp_path / "ledger" / "effects.jsonl"
    process, url = start(kind, path)
    try:
        arguments: dict[str, Any] = {
            "resource": CONTACTS,
            "session": session,
            "authorizer": with_token("t"),
            "options": KINDS[kind]().options,
            "timeouts": Timeouts(),
        }
        crm = ADAPTERS[kind](base_url=url, **arguments)
        assert (await crm.push(contacts(5), told("r1"))).outcomes[4].state == OK
        await Sandbox(kind, url, session).faults(accept_then_drop={})
        assert (await crm.push([contact("c9")], told("r2"))).outcomes[0].state == UNKNOWN
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        with path.open("a") as file:
            file.write('{"row":"effect","seq":7,"at":"20')
        assert path.stat().st_mode & 0o777 == 0o600, "it holds what people were sent"
        path.chmod(0o644)  # as earlier releases made it

        process, url = start(kind, path)
        assert path.stat().st_mode & 0o777 == 0o600
        again = Sandbox(kind, url, session)
        crm = ADAPTERS[kind](base_url=url, **arguments)
        assert [(e["seq"], e["key"]) for e in await again.effects()] == [
            *((n + 1, f"c{n}") for n in range(5)),
            (6, "c9"),
        ]
        assert [c["answered"] for c in await again.calls()] == [True, False]
        back = await crm.read_back([contact("c0"), contact("c9")], told("r3"))
        assert back.seen == {"c0": Seen.MATCHES, "c9": Seen.MATCHES}
        reply = await crm.push([contact("c0"), contact("new")], told("r4"))
        assert {o.state for o in reply.outcomes} == {OK}
        effects = (await again.effects())[6:]
        assert {(e["key"], e["created"], e["changed"]) for e in effects} == {("c0", False, False), ("new", True, True)}
        assert len({e["id"] for e in await again.effects()}) == 7
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
