"""The faults of a plan, done at their times; whatever is broken is whole again when the time is over."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Final

from tests.chaos.plan import Fault
from tests.chaos.proxy import PASS, Setting
from tests.chaos.stage import Stage


async def network(stage: Stage, fault: Fault) -> None:
    proxy = stage.proxies[fault.target]
    setting = Setting(**fault.details)
    proxy.set(setting)
    await asyncio.sleep(fault.seconds)
    if proxy.setting is setting:
        proxy.set(PASS)


async def kill(stage: Stage, fault: Fault) -> None:
    await stage.kill(fault.target)
    await asyncio.sleep(fault.seconds)
    stage.start(fault.target)


async def stop_worker(stage: Stage, fault: Fault) -> None:
    """It stands still in the middle of whatever it did, longer than its leases last."""
    stage.signal(fault.target, signal.SIGSTOP)
    await asyncio.sleep(fault.seconds)
    stage.signal(fault.target, signal.SIGCONT)


async def flush_redis(stage: Stage, fault: Fault) -> None:
    await stage.flush_redis()


async def kill_redis(stage: Stage, fault: Fault) -> None:
    await stage.engines.valkey.kill()
    await asyncio.sleep(fault.seconds)
    await stage.engines.restart()


async def kill_postgres(stage: Stage, fault: Fault) -> None:
    await stage.engines.postgres.kill()
    await asyncio.sleep(fault.seconds / 2)
    await stage.engines.restart()


async def crm(stage: Stage, fault: Fault) -> None:
    name, parameters = fault.details["fault"], fault.details["parameters"]
    await stage.misbehave(fault.target, name, parameters)
    await asyncio.sleep(fault.seconds)
    await stage.behave(fault.target, name)


FAULTS: Final[dict[str, Callable[[Stage, Fault], Awaitable[None]]]] = {
    "network": network,
    "kill_worker": kill,
    "kill_api": kill,
    "kill_crm": kill,
    "stop_worker": stop_worker,
    "flush_redis": flush_redis,
    "kill_redis": kill_redis,
    "kill_postgres": kill_postgres,
    "crm": crm,
}


async def inflict(stage: Stage, fault: Fault, *, began: float) -> None:
    await asyncio.sleep(max(0.0, began + fault.at - time.monotonic()))
    await FAULTS[fault.kind](stage, fault)
