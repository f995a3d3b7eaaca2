"""The console in a browser, on an installation of processes."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.acceptance.conftest import folder, tranche
from tests.acceptance.harness import Installation
from tests.console.browser import Console, browsing, console_of

__all__ = ["folder", "tranche"]


@pytest.fixture
async def console(tranche: Installation) -> AsyncIterator[Console]:
    """Signed out, at a server whose worker runs as well."""
    await tranche.start_both()
    async with browsing() as browser, console_of(browser, tranche) as made:
        yield made
