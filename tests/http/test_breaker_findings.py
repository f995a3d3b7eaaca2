"""What attacks on the running service found: each stays found."""

from __future__ import annotations

from typing import Any, TypeAlias

import asyncpg

from tests.http.conftest import Api

Db: TypeAlias = "asyncpg.Connection[Any]"


async def test_an_item_tells_of_its_faults_without_stammering(api: Api) -> None:
    body = b'{"items":[{"id":"c1","email":"   "},{"id":"c2","email":"c2@example.com","company":"a\nb"}]}'
    empty, broken = (await api.push(body)).json()["items"]
    assert empty["errors"][0]["detail"].startswith("email is empty")
    assert broken["errors"][0]["detail"] == (
        "company is not valid JSON: invalid control character at character 2; correct it"
    )
