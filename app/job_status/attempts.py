"""What became of a job's items over all attempts: a part of the read model.

A job's own counts say what its own attempt came to. Failed items may be sent again, by retries of the job and
by replays of its dead letters; the merged view follows each dead letter along its chain to its current state.
"""

import uuid
from collections.abc import Iterable

import msgspec

from app.job_status import lineage_queries
from app.job_status.lineage_queries import Attempt, DeadLettersRow, EffectsRow
from app.kit.postgres.database import Connection


class Merged(msgspec.Struct, frozen=True):
    """A job's items at one destination over all attempts. The other counts add up to `total`."""

    total: int = 0
    ok: int = 0
    """The destination holds the version that the item made, or a newer one."""
    open: int = 0
    """An attempt that is not finished has them."""
    failed: int = 0
    """A dead letter waits for an operator."""
    dropped: int = 0
    """An operator dropped them, or another destination refused them and all were to have them or none."""
    skipped: int = 0
    """There was nothing to send, or the destination was removed."""


async def read_family(
    connection: Connection, tenant_id: int, root: uuid.UUID
) -> tuple[list[Attempt], dict[str, Merged]]:
    """The attempts that `root` began, oldest first, and what its items have come to, by destination."""
    found = await lineage_queries.read_dead_letters(connection, tenant_id, root)
    effects = await lineage_queries.read_effects(connection, tenant_id, root)
    replays = found[0].replays if found else []
    attempts = await lineage_queries.read_attempts(connection, tenant_id, root, replays)
    return attempts, _merge(effects, {row.destination_id: row for row in found})


def _merge(effects: Iterable[EffectsRow], dead_letters: dict[int, DeadLettersRow]) -> dict[str, Merged]:
    merged: dict[str, Merged] = {}
    for row in effects:
        since = dead_letters.get(row.destination_id, DeadLettersRow(row.destination_id, 0, 0, 0, 0, 0, []))
        gone = since.ok + since.open + since.dropped + since.skipped
        before = merged.get(row.name, Merged())
        # A destination that was removed and added again stands here twice under one name.
        merged[row.name] = Merged(
            total=before.total + row.open + row.ok + row.skipped + row.failed,
            ok=before.ok + row.ok + since.ok,
            open=before.open + row.open + since.open,
            failed=before.failed + max(row.failed - gone, 0),
            dropped=before.dropped + since.dropped,
            skipped=before.skipped + row.skipped + since.skipped,
        )
    return merged
