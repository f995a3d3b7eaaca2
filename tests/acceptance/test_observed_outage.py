"""While a CRM is away, exactly the alert about it fires, in a real Prometheus with the files of deploy/."""

from __future__ import annotations

import pytest

from tests.acceptance.harness import Installation
from tests.acceptance.observed_outage import PROMETHEUS, observe, show

pytestmark = pytest.mark.slow


async def test_an_outage_raises_its_alert_and_no_other(tranche: Installation) -> None:
    if PROMETHEUS is None:
        pytest.skip("Prometheus is not installed here")
    run = await observe(tranche)
    show(run)

    assert [phase.name for phase in run.phases if not phase.is_right] == []
    assert run.blind == []
