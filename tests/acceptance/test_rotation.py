"""A new secret key while everything runs."""

from __future__ import annotations

import msgspec

from tests.acceptance.harness import Installation, people
from tests.conftest import SECRET_KEY
from tests.unit.kit.test_encryption import NEW


async def test_a_new_key_takes_over_without_a_token_being_given_again(tranche: Installation) -> None:
    both = f"{NEW},{SECRET_KEY}"
    _, worker = await tranche.start_both()
    await tranche.finished(await tranche.imported(people(1)))

    code, text = await tranche.command("secrets", "rotate", "--json", TRANCHE_SECRET_KEY=both)
    done = msgspec.json.decode(text)
    assert (code, done["secrets"], done["rotated"], done["unreadable"]) == (0, 1, 1, [])
    code, text = await tranche.command("secrets", "list", TRANCHE_SECRET_KEY=both)
    assert code == 0
    assert [done["key"], "1", "encrypts"] in [line.split()[:3] for line in text.splitlines()]

    await worker.child.stop(10)
    await tranche.start_worker(secret_key=NEW)
    await tranche.finished(await tranche.imported(people(1, start=1)))
    assert set(await tranche.sandbox.contacts()) == {"c00000", "c00001"}

    code, text = await tranche.command("secrets", "rotate", TRANCHE_SECRET_KEY=SECRET_KEY)
    assert code == 1, text
    assert "destination 'hubspot' cannot be decrypted" in text
