"""What a health check is, of the API and of workers alike (in the shape of draft-inadarei-api-health-check)."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Literal

import asyncpg
import msgspec
from redis.exceptions import RedisError

from app.errors import TrancheError

Word = Literal["pass", "warn", "fail"]

TIMEOUT: Final = 2.0
"""Longest look at one engine, in seconds."""


class Check(msgspec.Struct, omit_defaults=True):
    """One engine or destination."""

    status: Word
    output: str | None = None
    """What is wrong, in words."""
    retry_after_seconds: int | None = None
    milliseconds: float | None = None
    counts: dict[str, int] | None = None


Checks = dict[str, Check]


class Health(msgspec.Struct):
    """`pass`: all well. `warn`: work is taken and kept, some of it later. `fail`: nothing works."""

    status: Word
    checks: dict[str, Check]


async def timed(look: Callable[[], Awaitable[Check]]) -> Check:
    """A look that takes no longer than `TIMEOUT` and never fails, with the milliseconds that it took."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    try:
        async with asyncio.timeout(TIMEOUT):
            check = await look()
    except TimeoutError:
        check = Check("fail", f"no answer within {TIMEOUT:g} s")
    except TrancheError as error:
        check = Check("fail", error.detail)
    except (RedisError, OSError, asyncpg.PostgresError) as error:
        check = Check("fail", str(error) or type(error).__name__)
    check.milliseconds = round((loop.time() - started) * 1000, 1)
    return check
