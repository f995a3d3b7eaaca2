"""Connections to Redis: what they are told by a URL, and that they fail by errors that their users expect."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import RedisError

from app.kit.redis import make_pool


@pytest.mark.parametrize("options", [{}, {"socket_timeout": 1.0}], ids=["no timeout", "timeout"])
async def test_a_connection_that_is_closed_during_a_write_is_lost_not_broken(
    redis_url: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = make_pool(redis_url, **options)
    connection = await pool.get_connection()

    async def close_then_go_on(self: Any) -> None:
        await self.disconnect(nowait=True)  # as a reset does between the look at a connection and its use

    monkeypatch.setattr(type(connection), "check_health", close_then_go_on)
    with pytest.raises(RedisError, match="closed while writing"):
        await connection.send_command("PING")
    monkeypatch.undo()
    await pool.release(connection)
    async with Redis.from_pool(pool) as redis:
        assert await redis.ping()


async def test_a_question_under_way_when_its_connections_are_closed_fails_as_redis_being_away(redis_url: str) -> None:
    pool = make_pool(redis_url, socket_timeout=1.0)
    connection = await pool.get_connection()
    asked = asyncio.gather(connection.send_command("PING"), connection.disconnect(nowait=True), return_exceptions=True)
    assert isinstance((await asked)[0], RedisError)
    await pool.disconnect()


@pytest.mark.parametrize(
    ("url", "kind", "told"),
    [
        ("redis://:p%40ss%2Fword@redis.example:7000/3/", Connection, {"password": "p@ss/word", "db": 3}),
        ("rediss://redis.example?ssl_cert_reqs=none", SSLConnection, {"ssl_cert_reqs": "none"}),
        ("unix:///run/redis.sock?db=2", UnixDomainSocketConnection, {"path": "/run/redis.sock", "db": 2}),
    ],
)
def test_the_url_decides_how_redis_is_reached(url: str, kind: type, told: dict[str, Any]) -> None:
    pool = make_pool(url)
    assert issubclass(pool.connection_class, kind)
    assert told.items() <= pool.connection_kwargs.items()
    pool.make_connection()


def test_what_the_url_says_goes_before_what_the_program_would() -> None:
    pool = make_pool("redis://redis.example?socket_timeout=9", socket_timeout=1.0)
    assert pool.connection_kwargs["socket_timeout"] == 9
