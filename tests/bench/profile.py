"""Where an import's time goes within the process that serves it: `python -m tests.bench.profile`.

The accept transaction alone, without HTTP, under cProfile; batches of 1,000 items. Own time is attributed to the module
of ours that spends it, calls of libraries from there included; only processor time counts, so waiting does not. The
profiler makes Python calls dearer than calls into C: read the shares, not the microseconds.
"""

import argparse
import cProfile
import pstats
import random
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import uuid_utils.compat
import uvloop

from app.imports.service import Accepted207, ImportRequest, Options, accept
from app.kit.postgres.database import Database
from app.resource_types.catalog import Catalog
from app.resources.types.contacts import CONTACTS
from tests.bench import rig
from tests.bench.__main__ import BATCH

OURS = f"{Path(__file__).parents[2]}/app/"


async def main(batches: int) -> None:
    with tempfile.TemporaryDirectory(prefix="tranche-bench-") as folder:
        async with rig.installation(Path(folder) / "data", api_workers=1) as (settings, _, _):
            database = Database(settings, application_name="bench")
            await database.open()
            try:
                ids = [rig.record_ids(BATCH) for _ in range(batches)]
                for revision, kind in enumerate(("insert", "update")):
                    profiler = cProfile.Profile(time.process_time)
                    for number, part in enumerate(ids):
                        request = ImportRequest(
                            tenant_id=1,
                            key_id="bench",
                            request_id="bench",
                            resource=CONTACTS,
                            route="POST /v1/contacts:bulk",
                            key=f"{kind}-{number}",
                            options=Options(),
                        )
                        body = rig.body(rig.items(part, revision))
                        profiler.enable()
                        answer = await accept(
                            database,
                            request,
                            body,
                            settings,
                            catalog=Catalog(),
                            new_id=uuid_utils.compat.uuid7,
                            random=random.random,
                        )
                        profiler.disable()
                        assert isinstance(answer, Accepted207)
                    show(kind, pstats.Stats(profiler), batches * BATCH)
            finally:
                await database.close()


def show(kind: str, stats: Any, items: int) -> None:
    spent: Counter[str] = Counter()
    for (file, _, _), (_, _, own, _, callers) in stats.stats.items():
        if file.startswith(OURS):
            spent[file.removeprefix(OURS)] += own
            continue
        for (caller, _, _), (_, _, part, _) in callers.items():
            spent[caller.removeprefix(OURS) if caller.startswith(OURS) else "libraries"] += part
    total = sum(spent.values())
    print(f"\n{kind}: {total / items * 1e6:.1f} µs an item under the profiler\n")
    print("| module | share |\n|---|---:|")
    for module, seconds in spent.most_common(10):
        print(f"| {module} | {seconds / total:.0%} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=40)
    uvloop.run(main(parser.parse_args().batches))
