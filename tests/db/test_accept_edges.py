"""The accept transaction and its housekeeping at their edges."""

from __future__ import annotations

import asyncpg
import msgspec
import pytest

from app.db.pool import Database
from app.errors import Overloaded, SettingsError
from app.vault import Vault
from tests.db.conftest import Desk, people, told


async def test_a_batch_that_cannot_be_recorded_is_refused_for_what_it_is(desk: Desk) -> None:
    """Somebody locks the table of jobs: that is no rival request, and the key is free once it is over."""
    hasty = msgspec.structs.replace(desk.settings, db_lock_timeout=0.2)
    usual, desk.database = desk.database, Database(hasty, application_name="tests")
    other = await asyncpg.connect(desk.settings.database_url)
    try:
        async with other.transaction():
            await other.execute("LOCK TABLE jobs IN SHARE MODE")
            with pytest.raises(Overloaded):
                await desk.send(people(1), key="k")
        assert told(await desk.push(people(1), key="k")) == [("ok", "created", 1)]
    finally:
        await other.close()
        await desk.database.close()
        desk.database = usual


@pytest.mark.parametrize("key", ["", "short", "ä" * 44, "A" * 43])
def test_a_secret_key_that_is_none(key: str) -> None:
    """Whatever stands there, the operator is told what should."""
    with pytest.raises(SettingsError, match="32 random bytes"):
        Vault(key)
