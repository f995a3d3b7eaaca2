"""Access tokens that live for three seconds, and a worker that is killed: what `tests.acceptance.expiring_tokens` does
for ten minutes."""

from pathlib import Path

from tests.acceptance import expiring_tokens
from tests.bench.delivery.site import opened


async def test_every_record_arrives_and_no_token_is_asked_for_twice(tmp_path: Path) -> None:
    tmp_path.chmod(0o711)
    async with opened(tmp_path) as site:
        found = await expiring_tokens.measure(site, 1_500, 12.0, 3.0)
        assert all(one.holds(1_500) for one in found), found
        site.tranche.quiet = True
