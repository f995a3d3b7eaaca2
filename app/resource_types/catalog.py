"""The types of every tenant, compiled once for each version of their declaration; the same in API and worker."""

from collections.abc import Sequence
from typing import Final

from cachetools import LRUCache

from app.errors import NotFound
from app.kit.postgres.database import Connection
from app.resource_types import queries
from app.resource_types.queries import DeclaredType, TypeRow
from app.resources.declaration import Resource
from app.resources.json_schema import compile_type
from app.resources.types import BUILT_IN, BY_ID

_MOST: Final = 2_000
"""Compiled types that are kept."""


class Catalog:
    """One in a process."""

    def __init__(self) -> None:
        self._latest: LRUCache[tuple[int, int], Resource] = LRUCache(_MOST)
        """By tenant and type, as it was last seen."""
        self._ids: LRUCache[tuple[int, str], int] = LRUCache(_MOST)

    def recall(self, tenant_id: int, name: str) -> Resource | None:
        """The type as it was last seen here, which may be an older version by now; None: it must be looked up."""
        type_id = self._ids.get((tenant_id, name))
        found = None if type_id is None else self._latest.get((tenant_id, type_id))
        return found or BUILT_IN.get(name)

    async def find(self, connection: Connection, tenant_id: int, name: str) -> Resource:
        """The type as it is now. Raises `NotFound`: the tenant has no such type."""
        known = self.recall(tenant_id, name)
        row = await queries.find_type(connection, tenant_id, name, None, known.version if known else 0)
        found = self._take(tenant_id, row, known) or BUILT_IN.get(name)
        if found is None:
            raise NotFound(f"There is no resource type {name!r}; GET /v1/resource-types lists them.")
        return found

    async def by_id(self, connection: Connection, tenant_id: int, type_id: int) -> Resource:
        """The type of records that there are."""
        known = self._latest.get((tenant_id, type_id)) or BY_ID.get(type_id)
        row = await queries.find_type(connection, tenant_id, None, type_id, known.version if known else 0)
        return self._take(tenant_id, row, known) or BY_ID[type_id]

    async def all(self, connection: Connection, tenant_id: int) -> dict[str, Resource]:
        """Every type of the tenant, by name."""
        return self.compiled(tenant_id, await queries.list_types(connection, tenant_id))

    def compiled(self, tenant_id: int, declared: Sequence[DeclaredType]) -> dict[str, Resource]:
        """The same, where the declarations have been read."""
        return BUILT_IN | {row.name: self._compile(tenant_id, row) for row in declared}

    def _take(self, tenant_id: int, row: TypeRow | None, known: Resource | None) -> Resource | None:
        if row is None or (known is not None and known.version == row.version):
            return None if row is None else known
        return self._compile(tenant_id, row)

    def _compile(self, tenant_id: int, row: TypeRow) -> Resource:
        before = self._latest.get((tenant_id, row.type_id))
        if before is not None and before.version == row.version:
            return before
        assert row.definition is not None
        base = BY_ID.get(row.type_id)
        made = compile_type(row.name, row.definition, type_id=row.type_id, version=row.version, base=base, stored=True)
        self._latest[tenant_id, row.type_id] = made
        self._ids[tenant_id, row.name] = row.type_id
        return made
