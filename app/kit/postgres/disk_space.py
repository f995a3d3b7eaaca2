"""Whether PostgreSQL has room to write."""

import time
from typing import Final

from app.kit.postgres.database import Database
from app.kit.postgres.query import Query

_FRESH: Final = 10.0
"""Seconds for which room that was found is taken to be there still."""

_probe_memory = Query[[], None]("probe_memory")
_probe_room = Query[[], None]("probe_room")


class RoomProbe:
    """Looks for room by writing, and remembers for a while that there was some."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._fresh_until = 0.0

    async def look(self) -> None:
        """Write 16 MB to a temporary file of PostgreSQL, which goes at once; some 20 ms.

        Raises:
            StorageFull: there is no room for them.
            DatabaseUnavailable, Overloaded: nothing was found out.
        """
        if time.monotonic() < self._fresh_until and not self._database.storage.is_full:
            return
        async with self._database.connection() as connection, connection.transaction():
            await _probe_memory(connection)
            await _probe_room(connection)
        self._database.storage.note_room()
        self._fresh_until = time.monotonic() + _FRESH
